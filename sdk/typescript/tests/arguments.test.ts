/** Programs in JavaScript, whose arguments no compiler checks. */

import { expect, test } from "bun:test";
import { InvalidRequest, Buntime, type BuntimeOptions } from "../src/index";
import { FakeBuntime } from "../src/testing/index";
import { failureOf } from "./stand_in";

const NO_STRING = { path: "a" } as never;
const client = new FakeBuntime();
const session = await client.sessions.create();
const context = await session.contexts.create();
const { files } = session;

async function first(stream: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of stream) return;
}

const CALLS: Record<string, [string, () => Promise<unknown>]> = {
  "files.read": ["path", () => files.read(NO_STRING)],
  "files.readBytes": ["path", () => files.readBytes(NO_STRING)],
  "files.chunks": ["path", () => first(files.chunks(NO_STRING))],
  "files.writeStream": ["path", () => files.writeStream(NO_STRING, Uint8Array.of(1))],
  "files.list": ["path", async () => await first(files.list(NO_STRING))],
  "files.stat": ["path", () => files.stat(NO_STRING)],
  "files.exists": ["path", () => files.exists(NO_STRING)],
  "files.mkdir": ["path", () => files.mkdir(NO_STRING)],
  "files.move": ["from", () => files.move(NO_STRING, "b")],
  "files.move to": ["to", () => files.move("a", NO_STRING)],
  "files.delete": ["path", () => files.delete(NO_STRING)],
  "files.watch": ["path", () => first(files.watch(NO_STRING))],
  "files.upload": ["local", () => files.upload(NO_STRING, "a")],
  "files.download": ["path", () => files.download(NO_STRING, "/tmp/never-made")],
  "files.uploadArchive": ["local", () => files.uploadArchive(NO_STRING)],
  "files.downloadArchive": ["path", async () => await files.downloadArchive(NO_STRING, "/tmp/never-made")],
  "files.writeArchive": ["path", () => files.writeArchive(Uint8Array.of(1), NO_STRING)],
  "session.execute": ["code", () => session.execute(NO_STRING)],
  "session.executeCommand": ["command", () => session.executeCommand(NO_STRING)],
  "session.stream": ["code", async () => await first(session.stream(NO_STRING))],
  "session.streamCommand": ["command", async () => await first(session.streamCommand(NO_STRING))],
  "session.fetch": ["path", () => session.fetch(NO_STRING)],
  "context.execute": ["code", () => context.execute(NO_STRING)],
  "context.stream": ["code", async () => await first(context.stream(NO_STRING))],
  "contexts.open": ["contextId", async () => session.contexts.open(NO_STRING)],
  "processes.get": ["processId", () => session.processes.get(NO_STRING)],
  "snapshots.get": ["snapshotId", () => client.snapshots.get(NO_STRING)],
  "snapshots.delete": ["snapshotId", () => client.snapshots.delete(NO_STRING)],
  "session.restore": ["snapshotId", () => session.restore(NO_STRING)],
  "images.create": ["name", () => client.images.create(NO_STRING, {})],
  "sessions.get": ["sessionId", () => client.sessions.get(NO_STRING)],
  "sessions.open": ["sessionId", async () => client.sessions.open(NO_STRING)],
  "sessions.delete": ["sessionId", () => client.sessions.delete(NO_STRING)],
};

for (const [name, [field, call]] of Object.entries(CALLS))
  test(`${name} refuses an object before any request`, async () => {
    const before = client.requests.length;
    const failure = await failureOf(call());
    expect(failure).toBeInstanceOf(InvalidRequest);
    expect((failure as InvalidRequest).code).toBe("invalid_request");
    expect((failure as InvalidRequest).details).toEqual({ field });
    expect((failure as Error).message).toMatch(new RegExp(`^${field} must be a string, not (an object|undefined)\\.$`));
    expect(client.requests.length).toBe(before);
  });

test("a session may be given by an object with its id, as the server shows it", async () => {
  expect((await client.sessions.get({ sessionId: session.id })).id).toBe(session.id);
});

async function refusedFor(field: string, call: () => unknown): Promise<string> {
  const before = client.requests.length;
  const failure = await failureOf((async () => await call())());
  expect(failure).toBeInstanceOf(InvalidRequest);
  expect((failure as InvalidRequest).details).toEqual({ field });
  expect(client.requests.length).toBe(before);
  return (failure as Error).message;
}

for (const [options, message] of [
  [{ timeout: -1 }, "timeout must be more than 0 milliseconds, not -1."],
  [{ timeout: NaN }, "timeout must be more than 0 milliseconds, not NaN."],
  [{ timeout: "5" }, "timeout must be more than 0 milliseconds, not a string."],
  [{ maxRetries: -1 }, "maxRetries must be a whole number from 0, not -1."],
  [{ maxRetries: 1.5 }, "maxRetries must be a whole number from 0, not 1.5."],
  [{ retryDelay: -1 }, "retryDelay must be at least 0 milliseconds, not -1."],
  [{ onRetry: "x" }, "onRetry must be a function, not a string."],
  [{ fetch: {} }, "fetch must be a function, not an object."],
  [{ apikey: "btk_a" }, "Buntime has no option apikey. The nearest are apiKey, "],
  [{ retries: 1 }, "Buntime has no option retries. The nearest are maxRetries, "],
  [{ base_url: "http://a" }, "Buntime has no option base_url. The nearest are baseUrl, "],
] as const)
  test(`a client with ${Object.entries(options).join(": ")} is refused`, async () => {
    const make = () => new Buntime({ apiKey: "btk_a", ...options } as BuntimeOptions);
    expect(await refusedFor(Object.keys(options)[0]!, make)).toStartWith(message);
    expect(() => new FakeBuntime(options as never)).toThrow(InvalidRequest);
  });

test("a key in place of the options is refused", async () => {
  expect(await refusedFor("options", () => new Buntime("btk_a" as never))).toContain("an object, not a string");
});

const BAD_NUMBERS: Record<string, [string, () => unknown]> = {
  "the timeout of a run": ["timeout", () => session.execute("1", { timeout: NaN })],
  "the timeout of a stream": ["timeout", () => session.stream("1", { timeout: -1 })],
  "the timeout of a context": ["timeout", () => context.execute("1", { timeout: "1" as never })],
  "the timeout of a process": ["timeout", () => session.processes.start("a", { timeout: NaN })],
  "the patience for a process": [
    "waitFor.timeout",
    () => session.processes.start("a", { waitFor: { port: 1, timeout: NaN } }),
  ],
  "a ttl": ["ttl", () => client.sessions.create({ ttl: NaN })],
  "an extension": ["ttl", () => session.extend(Infinity)],
  "a limit": ["memory", () => client.sessions.create({ resourceLimits: { memory: NaN } })],
  "a start": ["start", () => first(files.chunks("a", { start: NaN }))],
  "an end": ["end", () => first(files.chunks("a", { end: 1.5 }))],
};

for (const [name, [field, call]] of Object.entries(BAD_NUMBERS))
  test(`${name} that is no such number is refused before any request`, async () => {
    expect(await refusedFor(field, call)).toStartWith(`${field} must be `);
  });

const FUNCTIONS: Record<string, [string, () => unknown]> = {
  "execute's onStdout": ["onStdout", () => session.execute("1", { onStdout: "x" as never })],
  "execute's onStderr": ["onStderr", () => session.executeCommand("1", { onStderr: {} as never })],
  "a context's onStdout": ["onStdout", () => context.execute("1", { onStdout: 1 as never })],
  "a stream's onStdout": ["onStdout", () => session.stream("1").result({ onStdout: "x" as never })],
  "execute's signal": ["signal", () => session.execute("1", { signal: "x" as never })],
  "a stream's signal": ["signal", () => session.stream("1", { signal: "x" as never })],
  "a file's signal": ["signal", () => files.read("a", { signal: {} as never })],
  "a terminal's signal": ["signal", () => session.terminal({ signal: "x" as never })],
  "a deletion's signal": ["signal", () => session.delete({ signal: 5 as never })],
  "a download's signal": ["signal", () => files.readBytes("a", { signal: "x" as never })],
};

for (const [name, [field, call]] of Object.entries(FUNCTIONS))
  test(`${name} of another type is refused before any request`, async () => {
    expect(await refusedFor(field, call)).toMatch(/^(on\w+ must be a function|signal must be an AbortSignal), not /);
  });

for (const [name, field, call] of [
  ["sessions.get", "sessionId", () => client.sessions.get("")],
  ["sessions.get by object", "sessionId", () => client.sessions.get({ sessionId: "" })],
  ["sessions.open", "sessionId", () => client.sessions.open("")],
  ["sessions.delete", "sessionId", () => client.sessions.delete("")],
  ["processes.get", "processId", () => session.processes.get("")],
  ["snapshots.get", "snapshotId", () => client.snapshots.get("")],
  ["snapshots.delete", "snapshotId", () => client.snapshots.delete("")],
  ["session.restore", "snapshotId", () => session.restore("")],
  ["contexts.open", "contextId", () => session.contexts.open("")],
] as const)
  test(`${name} refuses an empty id before any request`, async () => {
    expect(await refusedFor(field, call)).toBe(`${field} must not be empty.`);
  });

const BYTES = Uint8Array.of(0, 1, 2, 255);

test("bytes of a file may be an ArrayBuffer or any view", async () => {
  const part = BYTES.subarray(1, 3);
  for (const content of [BYTES.buffer, new DataView(BYTES.buffer), new Uint16Array(BYTES.buffer), Buffer.from(BYTES)]) {
    await files.write("a.bin", content);
    await files.write("a.bin", new DataView(part.buffer, part.byteOffset, part.byteLength), { append: true });
    expect([...(await files.readBytes("a.bin"))]).toEqual([0, 1, 2, 255, 1, 2]);
    await files.write({ "b.bin": content });
    await files.writeStream("c.bin", content);
    for (const path of ["b.bin", "c.bin"]) expect([...(await files.readBytes(path))]).toEqual([...BYTES]);
  }
});

for (const [name, field, call] of [
  ["nothing", "content", () => files.write("a", undefined as never)],
  ["an object", "content", () => files.write("a", { b: 1 } as never)],
  ["a number among files", "content", () => files.write({ a: 1 as never })],
  ["a number in place of files", "files", () => files.write(5 as never)],
  ["an object as a stream", "content", () => files.writeStream("a", {} as never)],
  ["a number as a stream, given later", "content", () => files.writeStream("a", (() => 5) as never)],
  ["an object as an archive", "archive", () => files.writeArchive({} as never)],
] as const)
  test(`${name} is no content of a file`, async () => {
    expect(await refusedFor(field, call)).toMatch(
      /(string.*bytes|list of files).*, not (undefined|an object|a number)/,
    );
  });

test("a new session knows what it was made with", async () => {
  const made = await client.sessions.create({
    metadata: { user: "u1" },
    preview: { ports: [3000] },
    network: { egress: "none" },
    onWake: "echo",
    sleepPolicy: { idleAfter: 60, deepSleepAfter: 600, checkpointEvery: 60 },
    env: { B: "2", A: "1" },
  });
  const { metadata, preview, network, onWake, sleepPolicy, checkpointedAt, envNames, snapshotId } = made;
  const { state, lastActive, filesCount, activeProcesses } = made;
  const settings = { metadata, preview, network, onWake, sleepPolicy, checkpointedAt, envNames, snapshotId };
  const seen = { ...settings, state, lastActive, filesCount, activeProcesses };
  expect(seen).toEqual({
    metadata: { user: "u1" },
    preview: { visibility: "public", ports: [3000] },
    network: { egress: "none", allow: [], deny: [] },
    onWake: "echo",
    sleepPolicy: { idleAfter: 60, deepSleepAfter: 600, checkpointEvery: 60, awakeWhile: "requests" },
    checkpointedAt: null,
    envNames: ["A", "B"],
    snapshotId: null,
    state: "active",
    lastActive: made.createdAt,
    filesCount: 0,
    activeProcesses: 0,
  });
  await made.refresh();
  expect(seen).toEqual({
    metadata: made.metadata,
    preview: made.preview,
    network: made.network,
    onWake: made.onWake,
    sleepPolicy: made.sleepPolicy,
    checkpointedAt: made.checkpointedAt,
    envNames: made.envNames,
    snapshotId: made.snapshotId,
    state: made.state,
    lastActive: made.lastActive,
    filesCount: 0,
    activeProcesses: 0,
  });
});
