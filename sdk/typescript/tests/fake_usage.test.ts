/** The fake's usage, as users' tests use it. */

import { expect, test } from "bun:test";
import { CursorPages, type AfterCursor } from "../src/cursors";
import { InvalidRequest, SessionNotFound } from "../src/index";
import { FakeBuntime } from "../src/testing/index";
import { failureOf } from "./stand_in";

const HOUR = 3_600_000;

/** A fake whose clock is moved by hand. */
function timed(): { fake: FakeBuntime; pass: (milliseconds: number) => void } {
  let now = Date.parse("2024-01-19T10:30:00Z");
  return { fake: new FakeBuntime({ clock: () => new Date(now) }), pass: (milliseconds) => void (now += milliseconds) };
}

test("each state has its seconds and each change a window", async () => {
  const { fake, pass } = timed();
  fake.onExecute("console.log(1)", { stdout: "1\n" });
  const session = await fake.sessions.create();
  await session.execute("console.log(1)");
  pass(HOUR);
  await session.sleep();
  pass(2 * HOUR);
  await session.sleep("deep-sleep");
  pass(3 * HOUR);
  await session.delete();
  const { total } = await fake.usage.get();
  expect(total).toMatchObject({ active: 3600, idle: 7200, deepSleep: 10_800, executions: 1, weightedSeconds: 5616 });
  const windows = await fake.usage.windows().all();
  expect(windows.map(({ state }) => state)).toEqual(["active", "idle", "deep-sleep"]);
  expect(windows[0]!.to).toBe(windows[1]!.from);
});

test("usage is shared among days and sessions", async () => {
  const { fake, pass } = timed();
  const one = await fake.sessions.create();
  pass(12 * HOUR);
  const two = await fake.sessions.create();
  pass(2 * HOUR);
  const { groups } = await fake.usage.get({ from: "2024-01-19", to: new Date("2024-01-21T00:00:00Z"), groupBy: "day" });
  expect(groups.map(({ day, active }) => [day, active])).toEqual([
    ["2024-01-19", 15 * 3600],
    ["2024-01-20", 3600],
  ]);
  const sessions = await fake.usage.sessions({ pageSize: 1 }).all();
  expect(sessions.map(({ sessionId }) => sessionId)).toEqual([one.id, two.id]);
});

test("a list of windows goes on where it was, and a loop that breaks off loses none", async () => {
  const fake = new FakeBuntime();
  for (let count = 0; count < 3; count += 1) await (await fake.sessions.create()).delete();
  const windows = fake.usage.windows({ pageSize: 2 });
  for await (const _ of windows) break;
  expect(windows.cursor).toBeUndefined();
  expect(await windows.page()).toHaveLength(2);
  expect(await fake.usage.windows({ cursor: windows.cursor }).all()).toHaveLength(1);
  expect(await windows.all()).toHaveLength(1);
  expect(await windows.page()).toEqual([]);
});

test("pages of sessions end", async () => {
  const { fake, pass } = timed();
  const made: string[] = [];
  for (let count = 0; count < 3; count += 1) made.push((await fake.sessions.create()).id);
  pass(HOUR);
  const sessions = fake.usage.sessions({ pageSize: 2 });
  const found: (string | undefined)[] = [];
  for (let page = await sessions.page(); page.length > 0; page = await sessions.page()) {
    found.push(...page.map(({ sessionId }) => sessionId));
    expect(found.length).toBeLessThanOrEqual(made.length);
  }
  expect(found.toSorted()).toEqual(made.toSorted());
  expect(await sessions.page()).toEqual([]);
  expect(await sessions.all()).toEqual([]);
});

test("an empty page in the middle is not the end", async () => {
  const told = new Map<string | undefined, AfterCursor<number>>([
    [undefined, { items: [1], cursor: "a" }],
    ["a", { items: [], cursor: "b" }],
    ["b", { items: [2], cursor: "c" }],
    ["c", { items: [], cursor: null }],
  ]);
  const pages = new CursorPages(async (cursor) => told.get(cursor)!, undefined);
  const found = [await pages.page(), await pages.page(), await pages.page(), await pages.page()];
  expect(found).toEqual([[1], [2], [], []]);
});

test("what a server refuses the fake refuses", async () => {
  const { usage } = new FakeBuntime();
  expect(await failureOf(usage.get({ sessionId: "ses_000000000000000000" }))).toBeInstanceOf(SessionNotFound);
  expect(await failureOf(usage.get({ from: "soon" }))).toBeInstanceOf(InvalidRequest);
  expect(await failureOf(usage.get({ from: "2024-01-02", to: "2024-01-02" }))).toBeInstanceOf(InvalidRequest);
  expect(await failureOf(usage.windows({ cursor: "uwc_9" }).page())).toBeInstanceOf(InvalidRequest);
});
