import assert from "node:assert/strict";
import { Buntime, InvalidRequest, InvalidState, ProcessNotFound, type LogEvent } from "@buntime/sdk";

await using session = await new Buntime().sessions.create({ ttl: 600 });
const { processes } = session;

const server = await processes.start("echo ready; python3 -m http.server 8080", {
  name: "site",
  waitFor: { port: 8080 },
});
assert.deepEqual([server.ready, server.status, server.name], [true, "running", "site"]);
assert.equal((await server.kill()).id, server.id);
assert.equal((await server.wait()).exitCode, 137);

const echo = await processes.start(
  "echo ready; while read line; do echo got $line; done; sleep 0.3; echo problem >&2; exit 3",
  {
    waitFor: { output: "^ready", timeout: 20 },
  },
);
await echo.input("one\n");
await echo.input(new TextEncoder().encode("two\n"));
await echo.closeInput();
const events: LogEvent[] = [];
for await (const event of echo.follow()) events.push(event);
const output = events
  .flatMap((event) => (event.type === "stdout" || event.type === "stderr" ? [event.data] : []))
  .join("");
assert.equal(output, "ready\ngot one\ngot two\nproblem\n");
assert.deepEqual(events.at(-1), { type: "exit", status: "exited", exitCode: 3, reason: null });
assert.equal(echo.exitCode, 3);
await assert.rejects(echo.input("late"), InvalidState);

const page = await echo.logs({ limit: 1 });
const rest = await echo.logs({ cursor: page.cursor });
assert.equal([...page.entries, ...rest.entries].map(({ data }) => data).join(""), output);
const again: LogEvent[] = [];
for await (const event of echo.follow({ cursor: page.cursor })) again.push(event);
assert.equal(again.length, rest.entries.length + 1);

const code = await processes.start({ code: "setInterval(() => undefined, 1000)", env: { A: "b" } });
for (const name of ["SIGWINCH", "SIGTSTP", "SIGSTOP", "SIGCONT"] as const) await code.signal(name); // none ends it
await assert.rejects(code.signal("SIGSEGV" as never), InvalidRequest);
assert.equal((await code.signal("SIGTERM")).id, code.id);
assert.equal((await code.wait()).exitCode, 143);
await assert.rejects(code.signal("SIGCONT"), InvalidState);
assert.deepEqual(
  (await processes.list({ pageSize: 2 }).all()).map(({ id }) => id),
  [code.id, echo.id, server.id],
);
await assert.rejects(processes.get("proc_abc123def456ghi789"), ProcessNotFound);
console.log("done");
