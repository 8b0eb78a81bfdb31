import { expect, test } from "bun:test";
import {
  Buntime,
  ConnectionFailed,
  ContextLost,
  DiskFull,
  FileNotFound,
  Forbidden,
  IdempotencyKeyReused,
  ImageNotFound,
  InvalidRequest,
  InvalidState,
  RequestTimeout,
  Session,
  SessionNotFound,
} from "../src/index";
import { FakeTransport } from "../src/testing/fake_transport";
import { FakeBuntime } from "../src/testing/index";
import { failureOf } from "./stand_in";

test("a run returns its scripted output and writes its scripted files", async () => {
  const client = new FakeBuntime();
  client.onExecute(/^console/, { stdout: "42\n", files: { "out.txt": "made" } });
  client.onExecute("npm test", ({ env }) => ({ exitCode: 1, stderr: `${env.CI} failed\n` }));
  client.onExecute(({ stdin }) => stdin === "x", { stdout: "had x" });
  await using session = await client.sessions.create({ ttl: 600, env: { CI: "yes" } });
  expect(session).toBeInstanceOf(Session);
  const done = await session.execute("console.log(42)", { files: [{ path: "in.txt", content: "given" }] });
  expect(done).toMatchObject({
    stdout: "42\n",
    stderr: "",
    exitCode: 0,
    timedOut: false,
    filesWritten: ["in.txt", "out.txt"],
  });
  expect(await session.files.read("out.txt")).toBe("made");
  expect(await session.executeCommand("npm test")).toMatchObject({ exitCode: 1, stderr: "yes failed\n" });
  expect(await client.execute({ sessionId: session.id, code: "1", stdin: "x" })).toMatchObject({ stdout: "had x" });
});

test("a run that reached the process limit says so", async () => {
  const client = new FakeBuntime();
  client.onExecute("bomb", { processLimitExceeded: true }).onExecute("calm", {});
  const session = await client.sessions.create();
  expect((await session.executeCommand("bomb")).processLimitExceeded).toBe(true);
  expect(await session.executeCommand("calm")).not.toHaveProperty("processLimitExceeded");
});

test("a run without a script fails with an error that says what to do", async () => {
  const session = await new FakeBuntime().sessions.create();
  const failure = await failureOf(session.executeCommand("ls"));
  expect(failure).toBeInstanceOf(InvalidRequest);
  expect((failure as Error).message).toContain("onExecute");
});

test("streams yield lines as events, and errors as errors", async () => {
  const client = new FakeBuntime().onExecute("x", { stdout: "a\nb", stderr: "c\n" });
  const session = await client.sessions.create();
  const told = await Array.fromAsync(session.stream("x"));
  expect(told.map((event) => ("data" in event ? [event.type, event.data] : event.type))).toEqual([
    ["stdout", "a\n"],
    ["stdout", "b"],
    ["stderr", "c\n"],
    "result",
  ]);
  expect(await failureOf(session.stream("y").result())).toBeInstanceOf(InvalidRequest);
  const detached = await Array.fromAsync(session.stream("x", { detach: true }));
  expect(detached.map(({ type }) => type)).toEqual(["process", "stdout", "stdout", "stderr", "result"]);
});

test("files behave as in a session", async () => {
  const { files } = await new FakeBuntime().sessions.create();
  await files.write("src/a.ts", "one\n");
  await files.write("src/a.ts", "two\n", { append: true });
  await files.write("/workspace/src/b.bin", Uint8Array.of(0, 255), { mode: "600" });
  expect(await files.read("src/a.ts")).toBe("one\ntwo\n");
  expect(await files.readBytes("src/b.bin")).toEqual(Uint8Array.of(0, 255));
  expect(await failureOf(files.read("src/b.bin"))).toBeInstanceOf(TypeError);
  expect(await files.stat("src/b.bin")).toMatchObject({ type: "file", size: 2, mode: "600" });
  expect((await files.list().all()).map(({ path }) => path)).toEqual(["src"]);
  expect((await files.list("src", { pageSize: 1 }).all()).map(({ path }) => path)).toEqual(["src/a.ts", "src/b.bin"]);
  expect((await files.search({ query: "TW", ignoreCase: true })).matches).toEqual([
    { path: "src/a.ts", line: 2, text: "two", ranges: [[0, 2]] },
  ]);
  expect(await failureOf(files.delete("src"))).toMatchObject({
    code: "file_conflict",
    details: { reason: "ENOTEMPTY" },
  });
  await files.move("src/a.ts", "lib/a.ts");
  expect([await files.exists("src/a.ts"), await files.exists("lib/a.ts")]).toEqual([false, true]);
  await files.writeArchive(Buffer.concat(await Array.fromAsync(files.readArchive("."))), "copy");
  expect(await files.read("copy/lib/a.ts")).toBe("one\ntwo\n");
  await files.delete("src", { recursive: true });
  expect(await failureOf(files.stat("src/b.bin"))).toBeInstanceOf(FileNotFound);
  expect(await files.mkdir("lib")).toEqual({ path: "lib", created: false });
});

test("a range yields just its bytes, an empty range nothing, and a negative start is refused", async () => {
  const client = new FakeBuntime();
  const { files } = await client.sessions.create();
  await files.write("a.txt", "0123456789");
  const part = async (start?: number, end?: number) =>
    Buffer.concat(await Array.fromAsync(files.chunks("a.txt", { start, end }))).toString();
  expect([await part(5, 7), await part(5), await part(undefined, 3), await part(0)]).toEqual([
    "56",
    "56789",
    "012",
    "0123456789",
  ]);
  expect([await part(0, 0), await part(5, 5), await part(7, 5)]).toEqual(["", "", ""]);
  const failure = await failureOf(part(-1));
  expect(failure).toBeInstanceOf(InvalidRequest);
  expect(failure).toMatchObject({ details: { field: "start" } });
});

test("an invalid range is ignored, as by the server", async () => {
  const transport = new FakeTransport();
  const session = await new Buntime({ apiKey: "btk_k", transport }).sessions.create();
  await session.files.write("a.txt", "0123456789");
  const url = `http://fake.invalid/files/content?sessionId=${session.id}&path=a.txt`;
  const { signal } = new AbortController();
  const answer = await transport.send({ method: "GET", url, headers: { Range: "bytes=7-5" }, body: null, signal });
  expect([answer.status, await answer.text()]).toEqual([200, "0123456789"]);
});

test("the caller's signal and the client's timeout end a call while its script runs", async () => {
  const client = new FakeBuntime({ timeout: 150, maxRetries: 0 }).onExecute("slow", async () => {
    await Bun.sleep(2000);
    return { stdout: "late" };
  });
  const session = await client.sessions.create();
  const before = performance.now();
  const stopped = () => ({ signal: AbortSignal.timeout(50) });
  expect(await failureOf(session.execute("slow", { timeout: 1, ...stopped() }))).toHaveProperty("name", "TimeoutError");
  expect(await failureOf(session.stream("slow", stopped()).result())).toHaveProperty("name", "TimeoutError");
  expect(await failureOf(client.execute({ sessionId: session.id, code: "slow", timeout: 0 }))).toBeInstanceOf(
    RequestTimeout,
  );
  expect(performance.now() - before).toBeLessThan(1000);
  expect((await session.refresh()).id).toBe(session.id);
});

test("a run with a key that outlasts the client's timeout runs once, and the retry waits for it", async () => {
  let played = 0;
  const client = new FakeBuntime({ timeout: 100, maxRetries: 9 }).onExecute("slow", async () => {
    played += 1;
    await Bun.sleep(250);
    return { stdout: "done" };
  });
  const { id } = await client.sessions.create();
  const request = { sessionId: id, code: "slow", timeout: 0 };
  expect((await client.execute(request, { idempotencyKey: "mine" })).stdout).toBe("done");
  expect(played).toBe(1);
});

test("a watch reports changes after its start", async () => {
  const { files } = await new FakeBuntime().sessions.create();
  const told: unknown[] = [];
  for await (const event of files.watch(".", { recursive: true })) {
    told.push(event);
    if (event.type === "ready") await files.write("a.txt", "1");
    if (event.type === "change") break;
  }
  expect(told).toEqual([{ type: "ready" }, { type: "change", event: "created", path: "a.txt", fileType: "file" }]);
});

test("processes run until their script or a signal ends them, and keep their logs", async () => {
  const client = new FakeBuntime().onExecute("build", { stdout: "done\n", exitCode: 3 });
  const session = await client.sessions.create();
  const build = await session.processes.start("build", { name: "b" });
  expect(await build.wait()).toMatchObject({ status: "exited", exitCode: 3, name: "b" });
  expect((await build.logs()).entries).toMatchObject([{ stream: "stdout", data: "done\n" }]);
  const server = await session.processes.start("bun server.ts", { waitFor: { port: 8080 } });
  expect([server.status, server.ready]).toEqual(["running", true]);
  await server.input("hello\n");
  expect(new TextDecoder().decode(client.inputOf(session.id, server.id))).toBe("hello\n");
  setTimeout(() => server.signal(), 10);
  expect(await Array.fromAsync(server.follow())).toEqual([
    { type: "exit", status: "exited", exitCode: 143, reason: null },
  ]);
  expect((await session.processes.list().all()).map(({ id }) => id)).toEqual([server.id, build.id]);
});

test("a signal does what it does in a server's process", async () => {
  const session = await new FakeBuntime().sessions.create();
  const process = await session.processes.start("serve");
  for (const name of ["SIGSTOP", "SIGTSTP", "SIGCONT", "SIGWINCH"] as const)
    expect((await process.signal(name)).status).toBe("running");
  for (const name of ["SIGNOPE", "SIGSEGV", "toString", 9]) {
    const failure = await failureOf(process.signal(name as never));
    expect(failure).toBeInstanceOf(InvalidRequest);
    expect(failure).toMatchObject({ status: 400, details: { field: "signal" } });
  }
  expect(await process.signal("SIGHUP")).toMatchObject({ status: "exited", exitCode: 129 });
  for (const name of ["SIGKILL", "SIGCONT"] as const) {
    const failure = await failureOf(process.signal(name));
    expect(failure).toBeInstanceOf(InvalidState);
    expect(failure).toMatchObject({ status: 409, details: { processId: process.id } });
  }
});

test("a process whose port is taken is not ready and says why", async () => {
  const client = new FakeBuntime().onStart("other", { stdout: "listening elsewhere\n", running: true });
  const session = await client.sessions.create();
  const start = (command: string, port = 8080) => session.processes.start(command, { waitFor: { port } });
  const first = await start("serve");
  expect([first.ready, first.portWasInUse]).toEqual([true, false]);
  const second = await start("serve");
  expect(second).toMatchObject({ ready: false, status: "exited", exitCode: 1, portWasInUse: true });
  expect((await second.logs()).entries[0]?.data).toContain("EADDRINUSE");
  expect(await start("other")).toMatchObject({ ready: false, status: "running", portWasInUse: true });
  expect((await start("serve", 3000)).ready).toBe(true);
  await first.kill();
  expect((await start("serve")).ready).toBe(true);
});

test("a process that ends is not ready on a port", async () => {
  const client = new FakeBuntime().onStart("make", { stdout: "done\n" });
  const session = await client.sessions.create();
  const made = await session.processes.start("make", { waitFor: { port: 8080 } });
  expect(made).toMatchObject({ ready: false, status: "exited", portWasInUse: false });
});

test("contexts return their scripted forms, and are lost in deep sleep", async () => {
  const client = new FakeBuntime().onExecute("1 + 1", { result: { text: "2", json: 2 } });
  const session = await client.sessions.create();
  const context = await session.contexts.create();
  expect(await context.execute("1 + 1")).toMatchObject({ result: { json: 2 }, displayed: [], exitCode: 0 });
  expect((await session.contexts.list())[0]).toMatchObject({ status: "running", runs: 1 });
  expect((await session.sleep("deep-sleep")).state).toBe("deep-sleep");
  expect(await failureOf(context.execute("1 + 1"))).toBeInstanceOf(ContextLost);
  expect(session).toMatchObject({ id: session.id });
  expect((await session.refresh()).state).toBe("active");
  await session.sleep();
  expect(await session.wake()).toMatchObject({ wokeFrom: "idle" });
});

test("a terminal prints the scripted output of its lines", async () => {
  const client = new FakeBuntime().onExecute("date", { stdout: "today\n" });
  const session = await client.sessions.create();
  const terminal = await session.terminal();
  terminal.write("date\nexit 3\n");
  const output = Buffer.concat(await Array.fromAsync(terminal)).toString();
  expect(output).toContain("today\r\n");
  expect(await terminal.ended).toEqual({ type: "exit", exitCode: 3, reason: null });
  expect(await failureOf(session.terminal({ terminalId: terminal.id }))).toHaveProperty("code", "terminal_not_found");
});

test("failures can be scripted for any call, and happen as often as scripted", async () => {
  const client = new FakeBuntime({ maxRetries: 0 });
  const session = await client.sessions.create();
  client.fail("POST", "/files/write", new DiskFull("Full.", { code: "disk_full", details: { limit: 1024 } }));
  const failure = await failureOf(session.files.write("a", "b"));
  expect(failure).toBeInstanceOf(DiskFull);
  expect(failure).toMatchObject({ status: 507, details: { limit: 1024 } });
  await session.files.write("a", "b");
  const broken = new ConnectionFailed("It broke.", { begun: true });
  client.fail("GET", "/sessions/{id}", broken, { times: 2 });
  for (const _ of [1, 2]) expect(await failureOf(session.refresh())).toBeInstanceOf(ConnectionFailed);
  await session.refresh();
});

test("a create with a lost response creates one session, as with a server", async () => {
  const client = new FakeBuntime();
  client.fail("POST", "/sessions/create", new ConnectionFailed("It broke.", { begun: true }), { afterWork: true });
  await client.sessions.create();
  expect(await client.sessions.list().all()).toHaveLength(1);
  expect(client.requests.map(({ method, path }) => `${method} ${path}`).slice(0, 2)).toEqual(
    Array(2).fill("POST /sessions/create"),
  );
  await client.sessions.create({ ttl: 600 }, { idempotencyKey: "k" });
  expect(await failureOf(client.sessions.create({ ttl: 900 }, { idempotencyKey: "k" }))).toBeInstanceOf(
    IdempotencyKeyReused,
  );
});

test("sessions can be listed by state and metadata, updated and deleted", async () => {
  const client = new FakeBuntime();
  const first = await client.sessions.create({ metadata: { user: "u1" } });
  const second = await client.sessions.create({ metadata: { user: "u2" } });
  await second.sleep();
  expect((await client.sessions.list().all()).map(({ id }) => id)).toEqual([second.id, first.id]);
  expect((await client.sessions.list({ metadata: { user: "u1" } }).all()).map(({ id }) => id)).toEqual([first.id]);
  expect((await client.sessions.list({ state: "idle" }).all()).map(({ id }) => id)).toEqual([second.id]);
  const before = Date.parse((await first.refresh()).expiresAt ?? "");
  expect(Date.parse((await first.extend(604_800)).expiresAt ?? "")).toBeGreaterThan(before);
  const { token } = await first.previewToken({ port: 3000 });
  expect(await first.revokePreviewTokens(token)).toBe(1);
  expect(first.previewUrlFor(3000)).toBe(first.previewUrl.replace(".localhost", "-3000.localhost"));
  await first.delete();
  expect(await failureOf(first.refresh())).toBeInstanceOf(SessionNotFound);
  await first[Symbol.asyncDispose](); // an already deleted session is no error
});

test("requests are recorded", async () => {
  const client = new FakeBuntime().onExecute("1", {});
  const session = await client.sessions.create();
  await session.execute("1", { timeout: 5 });
  expect(client.requests.at(-1)).toMatchObject({
    method: "POST",
    path: "/execute",
    body: { sessionId: session.id, code: "1", timeout: 5 },
  });
  expect(JSON.stringify(client.requests)).not.toContain("btk_");
});

test("a session stands on an image that was added", async () => {
  const client = new FakeBuntime().addImage("python", { sizeBytes: 5 });
  expect((await client.images.list().all()).map(({ name, sizeBytes }) => [name, sizeBytes])).toEqual([["python", 5]]);
  const session = await client.sessions.create({ image: "python" });
  expect((await session.refresh()).image).toBe("python");
  await expect(client.sessions.create({ image: "none" })).rejects.toBeInstanceOf(ImageNotFound);
  await expect(client.images.delete("python")).rejects.toBeInstanceOf(Forbidden);
});

test("a session of the fake need not end", async () => {
  let now = new Date("2024-01-19T10:30:00Z");
  const fake = new FakeBuntime({ clock: () => now });
  const [endless, other] = [await fake.sessions.create({ ttl: "never" }), await fake.sessions.create()];
  expect(endless.expiresAt).toBeNull();
  now = new Date("2034-01-19T10:30:00Z");
  expect((await endless.refresh()).expiresAt).toBeNull();
  expect(await failureOf(other.refresh())).toBeInstanceOf(SessionNotFound);
  expect((await endless.extend(300)).expiresAt).toBe("2034-01-19T10:35:00Z");
  expect((await endless.extend("never")).expiresAt).toBeNull();
});

test("the sleep policy of the fake has defaults and bounds", async () => {
  const fake = new FakeBuntime();
  const session = await (await fake.sessions.create({ sleepPolicy: { awakeWhile: "processes" } })).refresh();
  const usual = { idleAfter: 300, deepSleepAfter: 1800, checkpointEvery: "never", awakeWhile: "requests" } as const;
  expect(session.sleepPolicy).toEqual({ ...usual, awakeWhile: "processes" });
  expect((await session.update({ sleepPolicy: { idleAfter: "never" } })).sleepPolicy).toEqual({
    ...usual,
    idleAfter: "never",
  });
  expect((await session.update({ sleepPolicy: null })).sleepPolicy).toEqual(usual);
  const refused = await failureOf(session.update({ sleepPolicy: { deepSleepAfter: 4 } }));
  expect(refused).toMatchObject({ code: "invalid_request", details: { field: "sleepPolicy.deepSleepAfter" } });
});
