/** The fake's account and keys, as users' tests use them. */

import { expect, test } from "bun:test";
import { Forbidden, InvalidRequest, KeyNotFound, type CreateKey, type Scope } from "../src/index";
import { FakeBuntime } from "../src/testing/index";
import { failureOf } from "./stand_in";

test("a key is made, listed and revoked", async () => {
  const fake = new FakeBuntime();
  const made = await fake.keys.create({ name: "ci", scopes: ["account:read", "sessions:read"], expiresIn: 60 });
  expect(made.scopes).toEqual(["sessions:read", "account:read"]);
  expect(made.key).toStartWith(made.hint);
  expect((await fake.keys.list().all()).at(-1)!.keyId).toBe(made.keyId);
  await fake.keys.delete(made.keyId);
  expect(await failureOf(fake.keys.delete(made.keyId))).toBeInstanceOf(KeyNotFound);
  expect(await fake.keys.list().all()).toHaveLength(1);
  const { events } = await fake.events.list({ type: "key.revoked" });
  const { keyId, name, hint } = made;
  expect(events.map(({ data: { by: _, ...data } }) => data)).toEqual([{ keyId, name, hint }]);
});

test("the account counts what there is and shows the client's key", async () => {
  const fake = new FakeBuntime();
  const session = await fake.sessions.create();
  await session.snapshot();
  await fake.images.create("app", { sessionId: session.id });
  const { usage, key } = await fake.account();
  expect(usage).toEqual({ sessions: 1, snapshots: 1, images: 1 });
  expect([key.scopes.length, key.expiresAt]).toEqual([6, null]);
});

test("what a server refuses the fake refuses", async () => {
  const { keys } = new FakeBuntime();
  const wrong: CreateKey[] = [{ name: "" }, { scopes: [] }, { scopes: ["everything" as Scope] }, { expiresIn: 0 }];
  for (const fields of wrong) expect(await failureOf(keys.create(fields))).toBeInstanceOf(InvalidRequest);
  expect(await failureOf(keys.create({ scopes: ["operator"] }))).toBeInstanceOf(Forbidden);
});
