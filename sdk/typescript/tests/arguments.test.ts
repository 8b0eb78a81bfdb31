/** Programs in JavaScript, whose arguments no compiler checks. */

import { expect, test } from "bun:test";
import { InvalidRequest } from "../src/index";
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
