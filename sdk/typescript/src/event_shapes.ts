/** What the server accepts and returns for events and webhooks, as JSON. */

/** A type of events. */
export type EventType =
  | "session.created"
  | "session.idle"
  | "session.deep_sleep"
  | "session.woken"
  | "session.expired"
  | "session.deleted"
  | "execution.completed"
  | "process.exited"
  | "resource_limit.exceeded"
  | "snapshot.created"
  | "key.created"
  | "key.revoked"
  | "account.created"
  | "account.suspended"
  | "account.resumed"
  | "account.deleted"
  | "webhook.created"
  | "webhook.changed"
  | "webhook.deleted"
  | "webhook.disabled"
  | "webhook.test";

/** Who caused an event. A key has its id, and the address that its request came from. */
export interface EventCause {
  actor: "key" | "operator" | "server";
  keyId?: string;
  address?: string;
}

/** What happened. */
export interface AccountEvent {
  eventId: string;
  type: EventType;
  /** The session, which may be gone. Null for an event of the account. */
  sessionId: string | null;
  time: string;
  /** Of the request that caused it. Null if no request of the account did. */
  requestId: string | null;
  /** By type. */
  data: { by: EventCause } & Record<string, unknown>;
}

/** An event that a webhook has sent. */
export interface SentEvent extends AccountEvent {
  accountId: string;
}

/** An event that was followed. */
export interface FollowedEvent extends AccountEvent {
  /** Where to follow on after it. */
  cursor: string;
}

export interface EventPage {
  /** Oldest first. */
  events: AccountEvent[];
  /** Where the next page begins. */
  cursor: string;
}

/** Where events are sent. */
export interface Webhook {
  webhookId: string;
  url: string;
  /** Null for all. */
  events: EventType[] | null;
  enabled: boolean;
  /** `failing`: for 5 days. `gone`: it answered 410. Null: it is on. */
  disabledReason: "asked" | "failing" | "gone" | null;
  /** Its first failure after its last success. */
  failingSince: string | null;
  /** Until then, the secret before the last rotation is valid too. */
  oldSecretExpiresAt: string | null;
  createdAt: string;
}

export interface MadeWebhook extends Webhook {
  /** What `verifyWebhook` needs. The server does not show it again. */
  secret: string;
}

export interface CreateWebhook {
  /** `https://` or `http://` and a public host. */
  url: string;
  /** All by default. */
  events?: readonly EventType[] | null | undefined;
}

export interface UpdateWebhook {
  /** What waits is sent there too. */
  url?: string | undefined;
  /** Null for all. */
  events?: readonly EventType[] | null | undefined;
  /** False turns it off: events that happen meanwhile are never sent to it. */
  enabled?: boolean | undefined;
}

/** One event to one webhook. */
export interface Delivery {
  deliveryId: string;
  event: AccountEvent;
  /** `failed`: all 8 attempts have failed. */
  state: "pending" | "delivered" | "failed";
  attempts: number;
  lastAttemptAt: string | null;
  /** Of a pending one. */
  nextAttemptAt: string | null;
  /** Of the last answer, if there was one. */
  status: number | null;
  /** Why the last attempt failed. */
  failure: string | null;
}
