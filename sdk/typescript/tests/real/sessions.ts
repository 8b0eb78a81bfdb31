import assert from "node:assert/strict";
import { Buntime, InvalidRequest, SessionNotFound } from "@buntime/sdk";

const client = new Buntime();
const session = await client.sessions.create({ ttl: 600, metadata: { suite: "typescript", n: 1 }, env: { A: "b" } });
try {
  assert.match(session.id, /^ses_[a-z0-9]{18}$/);
  assert.equal(Date.parse(session.expiresAt ?? "") - Date.parse(session.createdAt), 600_000);
  assert.ok(session.resourceLimits.memory > 0);
  assert.match(session.previewUrlFor(3000), /^https?:\/\/ses-[a-z0-9]{18}-3000\./);

  const seen = await client.sessions.get(session.id);
  assert.deepEqual([seen.state, seen.metadata, seen.envNames], ["active", { suite: "typescript", n: 1 }, ["A"]]);
  const second = await client.sessions.create({ ttl: 600, metadata: { suite: "typescript", n: session.id } });
  const found = await client.sessions.list({ state: "active", metadata: { n: session.id } }).all();
  assert.deepEqual(
    found.map(({ id }) => id),
    [second.id],
  );
  const listed = await client.sessions.list({ metadata: { suite: "typescript" }, pageSize: 1 }).all();
  for (const { id } of [session, second]) assert.equal(listed.filter((other) => other.id === id).length, 1);
  assert.deepEqual(await client.sessions.delete(second.id), { deleted: true, sessionId: second.id });
  await assert.rejects(second.refresh(), SessionNotFound);
  await assert.rejects(
    client.sessions.create({ ttl: 1 }),
    (error) => error instanceof InvalidRequest && error.details.field === "ttl",
  );

  const twice = [1, 2].map(() => client.sessions.create({ ttl: 600 }, { idempotencyKey: `typescript-${session.id}` }));
  const ids = (await Promise.all(twice)).map(({ id }) => id);
  assert.equal(ids[0], ids[1], "one key creates one session, even with concurrent calls");
  await client.sessions.delete(ids[0]!);

  assert.equal(await session.extend(1200), session);
  assert.ok(Date.parse(session.expiresAt ?? "") - Date.now() > 1_100_000);
  assert.deepEqual((await session.update({ metadata: { user: "u" } })).metadata, { user: "u" });

  const { token, url } = await session.previewToken({ port: 3000 });
  assert.ok(url.includes(token));
  assert.equal(await session.revokePreviewTokens(token), 1);

  assert.equal((await session.sleep()).state, "idle");
  assert.deepEqual((await session.wake()).wokeFrom, "idle");
  await session.files.write("kept.txt", "kept");
  assert.equal((await session.sleep("deep-sleep")).state, "deep-sleep");
  assert.equal((await session.wake()).wokeFrom, "deep-sleep");
  assert.equal(await session.files.read("kept.txt"), "kept");
} finally {
  await session.delete();
}
await session[Symbol.asyncDispose]();
console.log("done");
