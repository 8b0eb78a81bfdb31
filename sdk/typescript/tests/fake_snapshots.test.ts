/** The fake's snapshots, forks, restores and images, as users' tests use them. */

import { expect, test } from "bun:test";
import {
  ContextLost,
  DiskFull,
  FileNotFound,
  Forbidden,
  ImageNotFound,
  InvalidRequest,
  ProcessNotFound,
  Session,
  SessionBusy,
  SessionLimitExceeded,
  SessionNotFound,
  SnapshotNotFound,
  Unavailable,
  type BuntimeError,
  type CreateSession,
} from "../src/index";
import { FakeBuntime } from "../src/testing/index";
import { failureOf } from "./stand_in";

const MB = 1 << 20;
const NOBODY = "snp_000000000000000000";

/** Returns a session with a file. */
async function written(fake: FakeBuntime, fields: CreateSession = {}): Promise<Session> {
  const session = await fake.sessions.create(fields);
  await session.files.write("a.txt", "one");
  return session;
}

async function refusedField(call: Promise<unknown>): Promise<unknown> {
  const failure = await failureOf(call);
  expect(failure).toBeInstanceOf(InvalidRequest);
  return (failure as BuntimeError).details.field;
}

test("a snapshot keeps files as they were and outlives its session", async () => {
  const fake = new FakeBuntime();
  const session = await written(fake);
  const made = await session.snapshot({ name: "first", metadata: { a: 1 } });
  expect(made).toMatchObject({ sessionId: session.id, name: "first", metadata: { a: 1 }, image: "default" });
  expect([made.sizeBytes, made.expiresAt]).toEqual([3, null]);
  await session.files.write("a.txt", "two");
  await session.delete();
  expect(await fake.snapshots.get(made.snapshotId)).toEqual(made);
  const other = await fake.sessions.create({ snapshotId: made.snapshotId });
  expect(await other.files.read("a.txt")).toBe("one");
  await other.files.write("a.txt", "three");
  const third = await fake.sessions.create({ snapshotId: made.snapshotId });
  expect(await third.files.read("a.txt")).toBe("one");
});

test("a snapshot of a sleeping session does not wake it", async () => {
  const session = await written(new FakeBuntime());
  await session.sleep("deep-sleep");
  await session.snapshot();
  expect((await session.refresh()).state).toBe("deep-sleep");
});

test("snapshots are listed newest first by session and name", async () => {
  const fake = new FakeBuntime();
  const [one, other] = [await written(fake), await written(fake)];
  const kept: string[] = [];
  for (const [session, name] of [
    [one, "a"],
    [other, "a"],
    [one, "b"],
  ] as const)
    kept.unshift((await session.snapshot({ name })).snapshotId);
  const ids = async (options: object) => (await fake.snapshots.list(options).all()).map(({ snapshotId }) => snapshotId);
  expect(await ids({ pageSize: 2 })).toEqual(kept);
  expect(await ids({ sessionId: one.id })).toEqual([kept[0]!, kept[2]!]);
  expect(await ids({ sessionId: one.id, name: "a" })).toEqual([kept[2]!]);
  await fake.snapshots.delete(kept[2]!);
  expect(await ids({})).toEqual(kept.slice(0, 2));
});

test("an unknown, deleted or expired snapshot is not found", async () => {
  let now = Date.parse("2024-01-19T10:30:00Z");
  const fake = new FakeBuntime({ clock: () => new Date(now) });
  const session = await written(fake);
  const [expiring, deleted] = [await session.snapshot({ ttl: 60 }), await session.snapshot()];
  expect(expiring.expiresAt).toBe("2024-01-19T10:31:00Z");
  await fake.snapshots.delete(deleted.snapshotId);
  now += 60_000;
  for (const snapshotId of [expiring.snapshotId, deleted.snapshotId, NOBODY])
    for (const call of [
      fake.snapshots.get(snapshotId),
      fake.snapshots.delete(snapshotId),
      fake.sessions.create({ snapshotId }),
      session.restore(snapshotId),
      fake.images.create("base", { snapshotId }),
    ]) {
      const failure = await failureOf(call);
      expect(failure).toBeInstanceOf(SnapshotNotFound);
      expect((failure as BuntimeError).details).toEqual({ snapshotId });
    }
  expect(await fake.snapshots.list().all()).toEqual([]);
});

test("wrong arguments are refused by their names", async () => {
  const fake = new FakeBuntime();
  const session = await written(fake);
  const { snapshotId } = await session.snapshot();
  const sessionId = session.id;
  expect(await refusedField(session.snapshot({ ttl: 59 }))).toBe("ttl");
  expect(await refusedField(session.snapshot({ name: "" }))).toBe("name");
  expect(await refusedField(fake.sessions.create({ image: "default", snapshotId }))).toBe("snapshotId");
  expect(await refusedField(session.forkMany(0))).toBe("count");
  expect(await refusedField(session.forkMany(101))).toBe("count");
  expect(await refusedField(fake.images.create("default", { sessionId }))).toBe("name");
  expect(await refusedField(fake.images.create("a", { sessionId, snapshotId }))).toBe("sessionId");
  expect(await refusedField(fake.images.create("a", {}))).toBe("sessionId");
});

test("a fork inherits settings but not ttl and metadata", async () => {
  const fake = new FakeBuntime();
  const source = await written(fake, {
    ttl: 600,
    metadata: { a: 1 },
    resourceLimits: { memory: 2048 },
    preview: { ports: [3000] },
    network: { egress: "none" },
    onWake: "make",
    env: { A: "1" },
    sleepPolicy: { checkpointEvery: 60, awakeWhile: "processes" },
  });
  await source.sleep("deep-sleep");
  expect(source.checkpointedAt).not.toBeNull();
  const fork = await source.fork();
  for (const seen of [fork, await fake.sessions.get(fork.id)]) {
    expect([seen.resourceLimits.memory, seen.preview.ports, seen.network.egress]).toEqual([2048, [3000], "none"]);
    expect([seen.onWake, seen.envNames, seen.image, seen.metadata]).toEqual(["make", ["A"], "default", {}]);
    const waits = { idleAfter: 300, deepSleepAfter: 1800, checkpointEvery: 60 };
    expect([seen.sleepPolicy, seen.checkpointedAt]).toEqual([{ ...waits, awakeWhile: "processes" }, null]);
    expect(Date.parse(seen.expiresAt ?? "") - Date.parse(seen.createdAt)).toBe(86_400_000);
  }
  await fork.files.write("a.txt", "two");
  expect((await source.refresh()).state).toBe("deep-sleep");
  expect(await source.files.read("a.txt")).toBe("one");
});

test("a fork has the settings of the call", async () => {
  const fake = new FakeBuntime();
  const source = await written(fake, { resourceLimits: { memory: 2048, cpu: 1 }, onWake: "make", env: { A: "1" } });
  const fork = await source.fork({
    ttl: 300,
    metadata: { b: 2 },
    resourceLimits: { memory: 64 },
    onWake: null,
    env: { B: "2" },
  });
  for (const seen of [fork, await fake.sessions.get(fork.id)]) {
    expect([seen.metadata, seen.onWake, seen.envNames]).toEqual([{ b: 2 }, null, ["B"]]);
    expect([seen.resourceLimits.memory, seen.resourceLimits.cpu]).toEqual([64, 1]);
    expect(Date.parse(seen.expiresAt ?? "") - Date.parse(seen.createdAt)).toBe(300_000);
  }
});

test("what is not known of a session is not invented", async () => {
  const fake = new FakeBuntime().onFetch(8080, "hello");
  const source = await written(fake, { preview: { visibility: "private" } });
  const { snapshotId } = await source.snapshot();
  const made = await fake.sessions.create({ snapshotId });
  expect([made.image, made.filesCount] as unknown[]).toEqual([undefined, undefined]);
  await made.refresh();
  expect([made.image, made.filesCount]).toEqual(["default", 1]);
  const fork = await fake.sessions.open(source.id).fork();
  expect([fork.preview, fork.envNames] as unknown[]).toEqual([undefined, undefined]);
  expect(await (await fork.fetch()).text()).toBe("hello"); // with a token, although the fork did not know that it needs one
});

test("a session says which snapshot it was made of", async () => {
  const fake = new FakeBuntime();
  const source = await written(fake);
  const [first, second] = [(await source.snapshot()).snapshotId, (await source.snapshot()).snapshotId];
  const made = await fake.sessions.create({ snapshotId: first });
  expect(made.snapshotId).toBe(first);
  expect((await made.refresh()).snapshotId).toBe(first);
  await made.restore(second);
  expect(made.snapshotId).toBe(first);
  await fake.snapshots.delete(first);
  const listed = (await fake.sessions.list().all()).map(({ id, snapshotId }) => [id, snapshotId]);
  expect(Object.fromEntries(listed)).toEqual({ [source.id]: null, [made.id]: first });
  const fork = await made.fork();
  expect([fork.snapshotId, (await fork.refresh()).snapshotId, source.snapshotId]).toEqual([null, null, null]);
});

test("each of many forks succeeds or fails alone", async () => {
  const fake = new FakeBuntime().limitSessions(3);
  const source = await written(fake);
  const [first, second, third] = (await source.forkMany(3)) as [Session, Session, BuntimeError];
  expect(third).toBeInstanceOf(SessionLimitExceeded);
  expect([third.retryable, third.details.limit]).toEqual([true, 3]);
  expect(first.id).not.toBe(second.id);
  for (const session of [first, second]) expect(await session.files.read("a.txt")).toBe("one");
  expect(await failureOf(source.forkMany(2))).toBeInstanceOf(SessionLimitExceeded);
  expect(await failureOf(source.fork())).toBeInstanceOf(SessionLimitExceeded);
  await first.delete();
  expect(await source.fork()).toBeInstanceOf(Session);
});

test("a repeated key forks and restores once", async () => {
  const fake = new FakeBuntime();
  const source = await written(fake);
  const { snapshotId } = await source.snapshot({}, { idempotencyKey: "a" });
  expect((await source.snapshot({}, { idempotencyKey: "a" })).snapshotId).toBe(snapshotId);
  const forks = [1, 2].map(() => source.forkMany(2, {}, { idempotencyKey: "b" }) as Promise<Session[]>);
  const [some, same] = (await Promise.all(forks)).map((all) => all.map(({ id }) => id));
  expect(some).toEqual(same!);
  await source.restore(snapshotId, { idempotencyKey: "c" });
  await source.files.write("a.txt", "two");
  await source.restore(snapshotId, { idempotencyKey: "c" });
  expect(await source.files.read("a.txt")).toBe("two");
});

for (const [name, path] of [
  ["snapshot", "/sessions/{id}/snapshots"],
  ["fork", "/sessions/{id}/fork"],
  ["restore", "/sessions/{id}/restore"],
  ["image", "/images/create"],
] as const)
  test(`a lost response of ${name} does nothing twice`, async () => {
    const fake = new FakeBuntime();
    const source = await written(fake);
    const { snapshotId } = await source.snapshot();
    fake.fail("POST", path, new Unavailable("lost", { code: "unavailable" }), { afterWork: true });
    await {
      snapshot: () => source.snapshot(),
      fork: () => source.fork(),
      restore: () => source.restore(snapshotId),
      image: () => fake.images.create("base", { sessionId: source.id }),
    }[name]();
    const kept = (await fake.snapshots.list().all()).map((one) => one.name);
    expect(kept).toEqual(
      { snapshot: [null, null], restore: ["before-restore", null], fork: [null], image: [null] }[name],
    );
    expect(await fake.sessions.list().all()).toHaveLength(name === "fork" ? 2 : 1);
  });

test("restoring replaces the files, ends processes and keeps the rest", async () => {
  const fake = new FakeBuntime();
  const session = await written(fake, { metadata: { a: 1 } });
  const [before, context] = [await session.processes.start("serve"), await session.contexts.create()];
  const { snapshotId } = await session.snapshot();
  const after = await session.processes.start("serve");
  await session.files.write({ "a.txt": "two", "b.txt": "new" });
  expect(await session.restore(snapshotId)).toBe(session);
  expect(session).toMatchObject({ state: "active", metadata: { a: 1 }, filesCount: 1, activeProcesses: 0 });
  expect(await session.files.read("a.txt")).toBe("one");
  expect(await failureOf(session.files.read("b.txt"))).toBeInstanceOf(FileNotFound);
  expect(await before.refresh()).toMatchObject({ status: "lost", exitCode: null, reason: "runtime_ended" });
  expect(await failureOf(after.refresh())).toBeInstanceOf(ProcessNotFound);
  expect(await failureOf(context.execute("1"))).toBeInstanceOf(ContextLost);
  const fork = await session.fork();
  expect([await fork.processes.list().all(), await fork.contexts.list()]).toEqual([[], []]);
  await session.sleep();
  expect((await session.restore(snapshotId)).state).toBe("deep-sleep");
});

test("the newest snapshot before a restore is kept for a day", async () => {
  let now = Date.parse("2024-01-19T10:30:00Z");
  const fake = new FakeBuntime({ clock: () => new Date(now) });
  const session = await written(fake, { ttl: 604_800 });
  const { snapshotId } = await session.snapshot();
  for (const content of ["two", "three"]) {
    await session.files.write("a.txt", content);
    await session.restore(snapshotId);
  }
  const [before, ...more] = await fake.snapshots.list({ name: "before-restore" }).all();
  expect([before!.expiresAt, more]).toEqual(["2024-01-20T10:30:00Z", []]);
  await session.restore(before!.snapshotId);
  expect(await session.files.read("a.txt")).toBe("three");
  now += 86_400_000;
  expect((await fake.snapshots.list().all()).map((one) => one.snapshotId)).toEqual([snapshotId]);
});

test("a session that a run uses is busy", async () => {
  const fake = new FakeBuntime({ maxRetries: 0 }).onExecute("slow", "one\ntwo\n");
  const session = await written(fake);
  const { snapshotId } = await session.snapshot();
  const seen: unknown[] = [];
  fake.onExecute("x", async () => {
    for (const call of [session.restore(snapshotId), session.sleep()]) seen.push(await failureOf(call));
    return "";
  });
  await session.execute("x");
  for await (const { type } of session.stream("slow"))
    if (type === "stdout") seen.push(await failureOf(session.restore(snapshotId)));
  expect(seen).toHaveLength(4);
  for (const failure of seen) expect(failure).toBeInstanceOf(SessionBusy);
  await session.restore(snapshotId);
});

test("files that need more than the disk limit are refused", async () => {
  const fake = new FakeBuntime();
  const large = await fake.sessions.create();
  await large.files.writeStream("big", new Uint8Array(17 * MB));
  const { snapshotId } = await large.snapshot();
  const resourceLimits = { disk: 16 };
  const small = await written(fake, { resourceLimits });
  const full = await failureOf(small.restore(snapshotId));
  expect(full).toBeInstanceOf(DiskFull);
  expect((full as DiskFull).message).toContain("need 17 MB, and the session's disk limit is 16 MB");
  expect((full as DiskFull).details).toEqual({ limit: 16 });
  expect(await small.files.read("a.txt")).toBe("one");
  expect(await refusedField(large.fork({ resourceLimits }))).toBe("resourceLimits.disk");
  expect(await refusedField(fake.sessions.create({ snapshotId, resourceLimits }))).toBe("resourceLimits.disk");
  expect(await fake.sessions.list().all()).toHaveLength(2);
});

test("a session starts with the files and variables of a made image", async () => {
  const seen: unknown[] = [];
  const fake = new FakeBuntime().addImage("base").onExecute("x", ({ env }) => {
    seen.push(env);
    return "";
  });
  const source = await written(fake, { image: "base" });
  const fields = { sessionId: source.id, env: { A: "1", B: "1" } };
  const image = await fake.images.create("app", fields);
  expect(image).toMatchObject({ name: "app", sizeBytes: 3 });
  expect(image.imageId).toMatch(/^img_[0-9a-f]{32}$/);
  expect((await fake.images.create("same", fields)).imageId).toBe(image.imageId);
  await source.files.write("a.txt", "two");
  expect((await fake.images.create("next", fields)).imageId).not.toBe(image.imageId);
  await source.delete();
  const session = await fake.sessions.create({ image: "app", env: { B: "2" } });
  await session.execute("x");
  expect(seen).toEqual([{ A: "1", B: "2" }]);
  await session.refresh();
  expect([session.image, session.envNames, session.filesCount]).toEqual(["app", ["B"], 1]);
  expect((await fake.images.list().all()).map(({ name }) => name)).toEqual(["app", "base", "next", "same"]);
  await fake.images.delete("app");
  expect(await session.files.read("a.txt")).toBe("one");
  expect(await failureOf(fake.sessions.create({ image: "app" }))).toBeInstanceOf(ImageNotFound);
  expect(await failureOf(fake.images.create("late", { sessionId: source.id }))).toBeInstanceOf(SessionNotFound);
});

test("an account's image hides the operator's of the same name", async () => {
  const fake = new FakeBuntime().addImage("app", { sizeBytes: 9 });
  const { snapshotId } = await (await written(fake)).snapshot();
  await fake.images.create("app", { snapshotId });
  expect((await fake.images.list().all()).map(({ sizeBytes }) => sizeBytes)).toEqual([3]);
  await fake.images.delete("app");
  expect((await fake.images.list().all()).map(({ sizeBytes }) => sizeBytes)).toEqual([9]);
  expect(await failureOf(fake.images.delete("app"))).toBeInstanceOf(Forbidden);
});
