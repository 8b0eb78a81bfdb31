import assert from "node:assert/strict";
import { Buntime, type RunEvent } from "@buntime/sdk";

const client = new Buntime();
await using session = await client.sessions.create({ ttl: 600 });

const done = await session.execute("console.log(process.env.GREETING, await Bun.file('a.txt').text())", {
  env: { GREETING: "hello" },
  files: [{ path: "a.txt", content: "olá" }],
});
assert.deepEqual(
  [done.stdout, done.stderr, done.exitCode, done.timedOut, done.filesWritten],
  ["hello olá\n", "", 0, false, ["a.txt"]],
);
assert.ok(done.executionTime > 0 && done.memoryUsed > 0);
const failed = await session.executeCommand("cat; echo problem >&2; exit 3", { stdin: "given" });
assert.deepEqual([failed.stdout, failed.stderr, failed.exitCode], ["given", "problem\n", 3]);
assert.deepEqual((await session.executeCommand("sleep 60", { timeout: 1 })).exitCode, 124);
const documented = await client.execute({ sessionId: session.id, command: "pwd" });
assert.equal(documented.stdout, "/workspace\n");

const key = { idempotencyKey: `typescript-${session.id}` };
const once = () => session.executeCommand("echo x >> once; wc -l < once", key);
assert.deepEqual([(await once()).stdout, (await once()).stdout], ["1\n", "1\n"]);

const events: RunEvent[] = [];
for await (const event of session.stream("console.log(1); await Bun.sleep(300); console.error('€')"))
  events.push(event);
assert.deepEqual(events.slice(0, 2), [
  { type: "stdout", data: "1\n" },
  { type: "stderr", data: "€\n" },
]);
assert.equal(events[2]?.type === "result" && events[2].exitCode, 0);
assert.equal((await session.streamCommand("seq 100000").result()).stdout.length, 588895);

for await (const event of session.streamCommand("echo begun; sleep 5; touch survived"))
  if (event.type === "stdout") break;
const stream = session.streamCommand("echo begun; sleep 5; touch survived");
for await (const event of stream) if (event.type === "stdout") void stream.close();
const left = async () => (await session.executeCommand("pgrep -f 'touch survived' | grep -v $$ | wc -l")).stdout.trim();
for (let look = 0; (await left()) !== "0" && look < 50; look++)
  await new Promise((resolve) => setTimeout(resolve, 100));
await new Promise((resolve) => setTimeout(resolve, 5000));
assert.equal(await session.files.exists("survived"), false, "leaving a stream ends its run");

let id = "";
for await (const event of session.streamCommand("echo begun; sleep 1; echo ended", { detach: true })) {
  if (event.type === "process") id = event.processId;
  if (event.type === "stdout") break;
}
const process = await (await session.processes.get(id)).wait();
assert.equal(process.exitCode, 0);
assert.equal((await process.logs()).entries.map(({ data }) => data).join(""), "begun\nended\n");
console.log("done");
