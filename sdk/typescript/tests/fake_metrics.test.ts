/** The fake's metrics, as users' tests use them. */

import { expect, test } from "bun:test";
import { InvalidRequest, SessionNotFound } from "../src/index";
import { FakeBuntime } from "../src/testing/index";
import { failureOf } from "./stand_in";

test("a session that is awake has a point, and one that sleeps has none", async () => {
  const fake = new FakeBuntime();
  const session = await fake.sessions.create();
  await session.files.write("a.txt", "four");
  const { step, points } = await session.metrics({ step: 60 });
  expect(step).toBe(60);
  expect(points.map(({ cpu, disk, diskMax }) => [cpu, disk, diskMax])).toEqual([[0, 4, 4]]);
  await session.sleep();
  expect((await session.metrics()).points).toEqual([]);
  expect((await session.refresh()).state).toBe("idle");
});

test("sessions are listed with what they do", async () => {
  const fake = new FakeBuntime();
  const first = await fake.sessions.create({ name: "build" });
  const second = await fake.sessions.create({ metadata: { team: "web" } });
  await first.sleep("deep-sleep");
  const found = await fake.sessions.metrics({ pageSize: 1 }).all();
  expect(found.map(({ sessionId, metrics }) => [sessionId, metrics === null])).toEqual([
    [second.id, false],
    [first.id, true],
  ]);
  const selected = await fake.sessions.metrics({ metadata: { team: "web" } }).all();
  expect(selected.map(({ sessionId }) => sessionId)).toEqual([second.id]);
});

test("times are dates or texts in order", async () => {
  const fake = new FakeBuntime();
  const session = await fake.sessions.create();
  const now = Date.now();
  expect((await session.metrics({ from: new Date(now - 7_200_000) })).points.length).toBe(1);
  const wrong = await failureOf(session.metrics({ from: new Date(now), to: new Date(now - 1000) }));
  expect(wrong).toBeInstanceOf(InvalidRequest);
  expect(await failureOf(session.metrics({ from: new Date("never") }))).toBeInstanceOf(InvalidRequest);
  await session.delete();
  expect(await failureOf(session.metrics())).toBeInstanceOf(SessionNotFound);
});
