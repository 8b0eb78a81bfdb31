import assert from "node:assert/strict";
import { Buntime, FileNotFound, ImageNotFound, Session, SnapshotNotFound } from "@buntime/sdk";

const client = new Buntime();
const session = await client.sessions.create({ ttl: 600, metadata: { a: 1 }, env: { A: "1" } });
const made: { delete(): Promise<void> }[] = [session];
try {
  await session.files.write("a.txt", "one");
  const snapshot = await session.snapshot({ name: "first", metadata: { user: "u1" } });
  assert.match(snapshot.snapshotId, /^snp_[a-z0-9]{18}$/);
  assert.deepEqual(await client.snapshots.get(snapshot.snapshotId), snapshot);
  assert.deepEqual(await client.snapshots.list({ sessionId: session.id, name: "first" }).all(), [snapshot]);

  await session.files.write({ "a.txt": "two", "b.txt": "new" });
  const other = await client.sessions.create({ snapshotId: snapshot.snapshotId });
  made.push(other);
  assert.equal(await other.files.read("a.txt"), "one");
  assert.equal(other.snapshotId, snapshot.snapshotId);
  await other.refresh();
  assert.deepEqual([other.image, other.snapshotId], ["default", snapshot.snapshotId]);

  const fork = await session.fork({ metadata: { b: 2 } });
  made.push(fork);
  assert.equal(await fork.files.read("a.txt"), "two");
  const told = () => {
    const { metadata, envNames, image, snapshotId, preview, network, onWake } = fork;
    return [metadata, envNames, image, snapshotId, preview, network, onWake];
  };
  const seen = told();
  await fork.refresh();
  assert.deepEqual(told(), seen);
  for (const one of await session.forkMany(2)) {
    assert.ok(one instanceof Session);
    made.push(one);
    assert.equal(await one.files.read("b.txt"), "new");
  }

  assert.equal(await session.restore(snapshot.snapshotId), session);
  assert.deepEqual([session.state, session.metadata], ["active", { a: 1 }]);
  assert.equal(await session.files.read("a.txt"), "one");
  await assert.rejects(session.files.read("b.txt"), FileNotFound);
  const [before] = await client.snapshots.list({ sessionId: session.id, name: "before-restore" }).all();
  await session.restore(before!.snapshotId);
  assert.equal(await session.files.read("b.txt"), "new");

  const image = await client.images.create("typescript", { sessionId: session.id, env: { B: "2" } });
  assert.ok((await client.images.list().all()).some(({ imageId }) => imageId === image.imageId));
  const onImage = await client.sessions.create({ image: "typescript" });
  made.push(onImage);
  assert.equal((await onImage.executeCommand("cat b.txt; echo $B")).stdout, "new2\n");
  await client.images.delete("typescript");
  await assert.rejects(client.sessions.create({ image: "typescript" }), ImageNotFound);

  await client.snapshots.delete(snapshot.snapshotId);
  await assert.rejects(session.restore(snapshot.snapshotId), SnapshotNotFound);
} finally {
  for (const one of made) await one.delete();
}
console.log("done");
