/** The fake's events and webhooks. Nothing is sent: a delivery has succeeded at once. */

import type {
  AccountEvent,
  CreateWebhook,
  Delivery,
  EventType,
  MadeWebhook,
  UpdateWebhook,
  Webhook,
} from "../event_shapes.js";
import type { ProcessShape } from "../shapes.js";
import type { Answer } from "../transport.js";
import { EVENTS, event, partly, refuse } from "./answers.js";
import { stamp, type Clock } from "./fake_session.js";
import { pageOf } from "./file_routes.js";

const PAGE = 100;
const MOST_WEBHOOKS = 10;
const DAY = 86_400;
const LOOK = 5; // ms between two looks of a stream for new events

export class FakeEvents {
  readonly #kept: AccountEvent[] = [];

  constructor(
    private readonly clock: Clock,
    private readonly newId: (kind: string) => string,
    private readonly webhooks: FakeWebhooks,
  ) {}

  add(type: EventType, sessionId: string | null, data: Record<string, unknown>): AccountEvent {
    const by = { actor: "key", keyId: "key_fake", address: "fake" } as const;
    return this.#add(type, sessionId, { ...data, by }, "fake");
  }

  /** A process has ended. No request is the cause. */
  addExit(sessionId: string, { processId, name, exitCode, reason }: ProcessShape): void {
    this.#add("process.exited", sessionId, { processId, name, exitCode, reason, by: { actor: "server" } }, null);
  }

  #add(type: EventType, sessionId: string | null, data: AccountEvent["data"], requestId: string | null): AccountEvent {
    const whole = { eventId: this.newId("evt"), type, sessionId, time: stamp(this.clock()), requestId, data };
    this.#kept.push(whole);
    this.webhooks.deliver(whole);
    return whole;
  }

  list(query: Record<string, string>, signal: AbortSignal): unknown {
    const begins = query.cursor === undefined ? null : numberOf(query.cursor);
    if (query.follow === "true")
      return partly(200, this.#followed(query, begins ?? this.#kept.length, signal), EVENTS, signal) satisfies Answer;
    const page = this.#from(begins ?? 0, query).slice(0, Number(query.limit ?? PAGE));
    return { events: page.map(({ told }) => told), cursor: cursorOf(page.at(-1)?.number ?? begins ?? 0) };
  }

  async *#followed(query: Record<string, string>, from: number, signal: AbortSignal): AsyncGenerator<Uint8Array> {
    let begins = from;
    yield event("ready", { cursor: cursorOf(begins) }, cursorOf(begins));
    while (true) {
      for (const { number, told } of this.#from(begins, query)) {
        begins = number;
        yield event("event", told, cursorOf(number));
      }
      await new Promise((resolve) => setTimeout(resolve, LOOK));
      signal.throwIfAborted();
    }
  }

  #from(begins: number, { sessionId, type }: Record<string, string>): { number: number; told: AccountEvent }[] {
    return this.#kept
      .map((told, index) => ({ number: index + 1, told }))
      .filter(
        ({ number, told }) =>
          number > begins && (sessionId ?? told.sessionId) === told.sessionId && (type ?? told.type) === told.type,
      );
  }
}

function cursorOf(number: number): string {
  return `evc_${number.toString(16)}`;
}

function numberOf(cursor: string): number {
  if (!/^evc_[0-9a-f]+$/.test(cursor))
    refuse("invalid_request", "cursor is not a cursor of events.", { field: "cursor" });
  return Number.parseInt(cursor.slice("evc_".length), 16);
}

export class FakeWebhooks {
  readonly #kept = new Map<string, { webhook: Webhook; deliveries: Delivery[] }>();

  constructor(
    private readonly clock: Clock,
    private readonly newId: (kind: string) => string,
  ) {}

  create(fields: CreateWebhook): MadeWebhook {
    check(fields);
    if (this.#kept.size >= MOST_WEBHOOKS) {
      const details = { resource: "webhooks", limit: MOST_WEBHOOKS };
      refuse("resource_limit_exceeded", `The account has ${MOST_WEBHOOKS} webhooks.`, details);
    }
    const webhook: Webhook = {
      webhookId: this.newId("whk"),
      url: fields.url,
      events: fields.events === undefined || fields.events === null ? null : [...fields.events],
      enabled: true,
      disabledReason: null,
      failingSince: null,
      oldSecretExpiresAt: null,
      createdAt: stamp(this.clock()),
    };
    this.#kept.set(webhook.webhookId, { webhook, deliveries: [] });
    return { ...webhook, secret: this.#secret() };
  }

  list(query: Record<string, string>): unknown {
    const { items, total } = pageOf(
      [...this.#kept.values()].map(({ webhook }) => webhook),
      query,
    );
    return { webhooks: items, total };
  }

  get(webhookId: string): Webhook {
    return this.#find(webhookId).webhook;
  }

  update(webhookId: string, fields: UpdateWebhook): Webhook {
    const { webhook } = this.#find(webhookId);
    check(fields);
    if (fields.enabled !== undefined) webhook.disabledReason = fields.enabled ? null : "asked";
    return Object.assign(webhook, fields);
  }

  rotate(webhookId: string, { overlap = DAY }: { overlap?: number }): MadeWebhook {
    const { webhook } = this.#find(webhookId);
    webhook.oldSecretExpiresAt = overlap === 0 ? null : stamp(this.clock(), overlap);
    return { ...webhook, secret: this.#secret() };
  }

  delete(webhookId: string): unknown {
    this.#find(webhookId);
    this.#kept.delete(webhookId);
    return { deleted: true, webhookId };
  }

  /** To the webhooks that want it. A test goes to the one that it names. */
  deliver(told: AccountEvent): void {
    for (const { webhook, deliveries } of this.#kept.values()) {
      const wanted =
        told.type === "webhook.test"
          ? told.data["webhookId"] === webhook.webhookId
          : (webhook.events?.includes(told.type) ?? true);
      if (webhook.enabled && wanted) deliveries.unshift(this.#delivered(told));
    }
  }

  deliveries(webhookId: string, query: Record<string, string>): unknown {
    const { items, total } = pageOf(this.#find(webhookId).deliveries, query);
    return { deliveries: items, total };
  }

  requireOn(webhookId: string): void {
    if (!this.#find(webhookId).webhook.enabled)
      refuse("invalid_state", "The webhook is off. Turn it on first, with enabled true.");
  }

  redeliver(webhookId: string, deliveryId: string): unknown {
    this.requireOn(webhookId);
    if (!this.#find(webhookId).deliveries.some((one) => one.deliveryId === deliveryId))
      refuse("delivery_not_found", "This webhook has no delivery with this id.", { deliveryId });
    return { deliveryId };
  }

  #find(webhookId: string): { webhook: Webhook; deliveries: Delivery[] } {
    const found = this.#kept.get(webhookId);
    if (found === undefined) refuse("webhook_not_found", "No webhook with this id.", { webhookId });
    return found;
  }

  #delivered(told: AccountEvent): Delivery {
    return {
      deliveryId: this.newId("dlv"),
      event: told,
      state: "delivered",
      attempts: 1,
      lastAttemptAt: stamp(this.clock()),
      nextAttemptAt: null,
      status: 200,
      failure: null,
    };
  }

  #secret(): string {
    return `whsec_${btoa(this.newId("secret").padStart(32, "0").slice(-32))}`;
  }
}

function check({ url, events }: UpdateWebhook): void {
  if (url !== undefined && !/^https?:\/\//.test(url))
    refuse("invalid_request", "url must begin with https:// or http:// and name a host.", { field: "url" });
  if (events?.length === 0) refuse("invalid_request", "events must have at least 1 entry.", { field: "events" });
}
