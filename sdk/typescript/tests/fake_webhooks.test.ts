/** The fake's events and webhooks, as users' tests use them. */

import { expect, test } from "bun:test";
import { DeliveryNotFound, InvalidRequest, InvalidState, WebhookNotFound } from "../src/index";
import { FakeBuntime } from "../src/testing/index";
import { failureOf } from "./stand_in";

test("events tell what happened, page by page", async () => {
  const fake = new FakeBuntime();
  const session = await fake.sessions.create({ name: "ci" });
  await session.delete();
  const first = await fake.events.list({ limit: 1 });
  expect(first.events.map(({ type, sessionId }) => [type, sessionId])).toEqual([["session.created", session.id]]);
  const second = await fake.events.list({ cursor: first.cursor });
  expect(second.events.map(({ type }) => type)).toEqual(["session.deleted"]);
  expect((await fake.events.list({ type: "session.deleted" })).events).toHaveLength(1);
  expect(await failureOf(fake.events.list({ cursor: "nonsense" }))).toBeInstanceOf(InvalidRequest);
});

test("events are followed from a cursor on", async () => {
  const fake = new FakeBuntime();
  const { cursor } = await fake.events.list();
  await fake.sessions.create();
  const seen: string[] = [];
  for await (const event of fake.events.follow({ cursor })) {
    seen.push(event.type);
    expect(event.cursor).toStartWith("evc_");
    if (seen.length === 2) break;
    fake.addEvent("process.exited", { sessionId: event.sessionId!, data: { exitCode: 1 } });
  }
  expect(seen).toEqual(["session.created", "process.exited"]);
});

test("the end of a process is an event", async () => {
  const fake = new FakeBuntime();
  const session = await fake.sessions.create({ services: [{ name: "web", command: "serve" }] });
  const process = await session.processes.start({ command: "sleep 1000", name: "job" });
  await session.processes.start("sleep 1000");
  await process.signal("SIGKILL");
  await session.services.stop("web");
  await session.sleep("deep-sleep");
  const { events } = await fake.events.list({ type: "process.exited" });
  expect(events.map(({ data }) => [data.name, data.exitCode])).toEqual([
    ["job", 137],
    ["web", 143],
  ]);
  expect(events[0]).toMatchObject({ sessionId: session.id, requestId: null });
  const by = { actor: "server" } as const;
  expect(events[0]!.data).toEqual({ processId: process.id, name: "job", exitCode: 137, reason: null, by });
});

test("a webhook gets what it wants, and is tested, rotated, turned off and deleted", async () => {
  const fake = new FakeBuntime();
  const { webhooks } = fake;
  const made = await webhooks.create({ url: "https://example.com", events: ["session.created"] });
  expect(made.secret).toStartWith("whsec_");
  const id = made.webhookId;
  await (await fake.sessions.create()).delete();
  await webhooks.test(id);
  const sent = await webhooks.deliveries(id).all();
  expect(sent.map(({ event }) => event.type)).toEqual(["webhook.test", "session.created"]);
  await webhooks.redeliver(id, sent[0]!.deliveryId);
  expect(await failureOf(webhooks.redeliver(id, "dlv_none"))).toBeInstanceOf(DeliveryNotFound);
  expect((await webhooks.rotate(id, { overlap: 60 })).secret).not.toBe(made.secret);
  expect((await webhooks.update(id, { enabled: false, events: null })).disabledReason).toBe("asked");
  expect(await failureOf(webhooks.test(id))).toBeInstanceOf(InvalidState);
  expect((await webhooks.get(id)).events).toBeNull();
  expect(await webhooks.list().all()).toHaveLength(1);
  await webhooks.delete(id);
  expect(await failureOf(webhooks.get(id))).toBeInstanceOf(WebhookNotFound);
  expect(await failureOf(webhooks.create({ url: "ftp://example.com" }))).toBeInstanceOf(InvalidRequest);
});
