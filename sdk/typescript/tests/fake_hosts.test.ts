/** The fake's one host, as users' tests see it. */

import { expect, test } from "bun:test";
import { FakeBuntime } from "../src/testing/index";

test("the fake is one host with its sessions", async () => {
  const fake = new FakeBuntime();
  await fake.sessions.create();
  const asleep = await fake.sessions.create();
  await asleep.sleep("deep-sleep");
  const { hosts, nobody } = await fake.hosts.list();
  const [host, ...others] = hosts;
  expect(others).toEqual([]);
  expect(host).toMatchObject({ hostId: "local", state: "active", draining: false, lease: null });
  expect(host!.sessions).toEqual({ active: 1, idle: 0, deepSleep: 1, unsaved: 0 });
  expect(host!.load!.sandboxes).toBe(1);
  expect(nobody).toEqual({ active: 0, idle: 0, deepSleep: 0, unsaved: 0 });
});
