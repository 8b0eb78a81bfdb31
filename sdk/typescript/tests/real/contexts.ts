import assert from "node:assert/strict";
import { Buntime, ContextLost, ContextNotFound, type RunEvent } from "@buntime/sdk";

await using session = await new Buntime().sessions.create({ ttl: 600 });
const context = await session.contexts.create({ env: { A: "b" } });
await context.execute("const rows = [{ a: 1 }, { a: 2 }]");
const shown = await context.execute("display(process.env.A); rows");
assert.deepEqual(shown.result?.json, [{ a: 1 }, { a: 2 }]);
assert.equal(shown.displayed[0]?.text, "b");
const thrown = await context.execute("null.field");
assert.deepEqual([thrown.exitCode, thrown.error?.name], [1, "TypeError"]);
const late = await context.execute("await Bun.sleep(60_000)", { timeout: 1 });
assert.deepEqual([late.timedOut, late.contextSurvived], [true, true]);
const events: RunEvent[] = [];
for await (const event of session.contexts
  .open(context.id)
  .stream("console.log(1); display.markdown('*x*'); rows.length"))
  events.push(event);
assert.deepEqual(
  events.map(({ type }) => type),
  ["stdout", "displayed", "result"],
);
assert.equal(events[2]?.type === "result" && events[2].result?.json, 2);
const [listed] = await session.contexts.list();
assert.deepEqual([listed?.contextId, listed?.status], [context.id, "running"]);

const gone = await session.contexts.create();
await gone.execute("process.exit(3)");
await assert.rejects(gone.execute("1"), (error) => error instanceof ContextLost && error.details.reason === "exited");
await context.delete();
await assert.rejects(context.execute("1"), ContextNotFound);
console.log("done");
