/** The fake's names of sessions, as users' tests use them. */

import { expect, test } from "bun:test";
import { InvalidRequest, NameTaken, SessionLimitExceeded, SessionNotFound } from "../src/index";
import { FakeBuntime } from "../src/testing/index";
import { failureOf } from "./stand_in";

test("a session is found by its name", async () => {
  const fake = new FakeBuntime();
  const made = await fake.sessions.create({ name: "build" });
  expect([made.name, made.existed]).toEqual(["build", false]);
  const found = await fake.sessions.get("name:build");
  expect([found.id, found.name, found.existed]).toEqual([made.id, "build", true]);
  expect((await fake.sessions.list({ name: "build" }).all()).map(({ id }) => id)).toEqual([made.id]);
  expect(await fake.sessions.list({ name: "other" }).all()).toEqual([]);
  const opened = fake.sessions.open("name:build");
  await opened.files.write("a.txt", "one");
  expect(await made.files.read("a.txt")).toBe("one");
  expect((await opened.refresh()).id).toBe(made.id);
  await made.snapshot();
  expect((await fake.snapshots.list({ sessionId: "name:build" }).all()).length).toBe(1);
});

test("a taken name is refused until its session is deleted", async () => {
  const fake = new FakeBuntime();
  const made = await fake.sessions.create({ name: "build" });
  const other = await fake.sessions.create();
  for (const refused of [fake.sessions.create({ name: "build" }), other.update({ name: "build" })]) {
    const taken = await failureOf(refused);
    expect(taken).toBeInstanceOf(NameTaken);
    expect((taken as NameTaken).details).toEqual({ name: "build", sessionId: made.id });
  }
  expect(await fake.sessions.delete("name:build")).toEqual({ deleted: true, sessionId: made.id });
  expect(await failureOf(fake.sessions.get("name:build"))).toBeInstanceOf(SessionNotFound);
  expect((await other.update({ name: "build" })).name).toBe("build");
  expect((await other.update({ name: null })).name).toBeNull();
});

test("getOrCreate creates once and leaves what exists as it is", async () => {
  const fake = new FakeBuntime().limitSessions(1);
  const options = { idempotencyKey: "k" };
  const first = await fake.sessions.getOrCreate({ name: "build", metadata: { a: 1 } }, options);
  expect([first.existed, first.metadata, first.name]).toEqual([false, { a: 1 }, "build"]);
  await first.sleep();
  for (const key of ["l", "l"]) {
    const again = await fake.sessions.getOrCreate({ name: "build", metadata: { a: 2 } }, { idempotencyKey: key });
    expect([again.id, again.existed, again.name, again.metadata as unknown]).toEqual([
      first.id,
      true,
      "build",
      undefined,
    ]);
    expect([(await again.refresh()).state, again.metadata]).toEqual(["idle", { a: 1 }]);
  }
  expect((await fake.sessions.getOrCreate({ name: "build", metadata: { a: 1 } }, options)).existed).toBe(false);
  expect(await failureOf(fake.sessions.getOrCreate({ name: "other" }))).toBeInstanceOf(SessionLimitExceeded);
});

test("calls at once get the same session", async () => {
  const fake = new FakeBuntime();
  const found = await Promise.all(Array.from({ length: 10 }, () => fake.sessions.getOrCreate({ name: "build" })));
  expect(new Set(found.map(({ id }) => id)).size).toBe(1);
  expect(found.filter(({ existed }) => !existed).length).toBe(1);
});

test("a name has few characters", async () => {
  const fake = new FakeBuntime();
  for (const name of ["", "A", "-a", "a_b", "a".repeat(64)]) {
    const refused = await failureOf(fake.sessions.create({ name }));
    expect(refused).toBeInstanceOf(InvalidRequest);
    expect((refused as InvalidRequest).details.field).toBe("name");
  }
});

test("a fork has a name of its own or none", async () => {
  const source = await new FakeBuntime().sessions.create({ name: "build" });
  expect((await source.fork()).name).toBeNull();
  const copy = await source.fork({ name: "copy" });
  expect((await copy.refresh()).name).toBe("copy");
  expect(await failureOf(source.fork({ name: "copy" }))).toBeInstanceOf(NameTaken);
});
