/** The account's webhooks: where its events are sent. */

import { requireId } from "./arguments.js";
import { newKey, type CallOptions, type Calls, type KeyedOptions } from "./calls.js";
import type { CreateWebhook, Delivery, MadeWebhook, UpdateWebhook, Webhook } from "./event_shapes.js";
import { Pages } from "./pages.js";

export interface ListWebhooks extends CallOptions {
  /** Entries a request, 1 to 100; 50 by default. */
  pageSize?: number | undefined;
}

/** The webhooks of the account. They need the scopes `account:read` and `account:write`. */
export class Webhooks {
  readonly #calls: Calls;

  /** @internal */
  constructor(calls: Calls) {
    this.#calls = calls;
  }

  /** Lists the webhooks, oldest first, page by page as you iterate, without their secrets. */
  list(options: ListWebhooks = {}): Pages<Webhook> {
    const { pageSize, signal } = options;
    return new Pages(
      async (offset) => {
        const query = { limit: pageSize, offset: offset || undefined };
        const call = { method: "GET", path: "/webhooks", query, signal } as const;
        const { webhooks, total } = await this.#calls.json<{ webhooks: Webhook[]; total: number }>(call);
        return { items: webhooks, total };
      },
      ({ webhookId }) => webhookId,
    );
  }

  /**
   * Creates a webhook. Its `secret` is what `verifyWebhook` needs; it is not shown again. An idempotency key is sent by
   * default, so a retry creates nothing twice. Throws `ResourceLimitExceeded` beyond 10 webhooks.
   */
  create(fields: CreateWebhook, options: KeyedOptions = {}): Promise<MadeWebhook> {
    const { signal, idempotencyKey = newKey() } = options;
    const call = { method: "POST", path: "/webhooks/create", json: fields, signal, idempotencyKey } as const;
    return this.#calls.json<MadeWebhook>(call);
  }

  /** Returns a webhook. Throws `WebhookNotFound`. */
  async get(webhookId: string, options: CallOptions = {}): Promise<Webhook> {
    return await this.#calls.json<Webhook>({ method: "GET", path: path(webhookId), ...options });
  }

  /** Changes what is given. Throws `WebhookNotFound`. */
  async update(webhookId: string, fields: UpdateWebhook, options: CallOptions = {}): Promise<Webhook> {
    return await this.#calls.json<Webhook>({ method: "PATCH", path: path(webhookId), json: fields, ...options });
  }

  /** Deletes a webhook, with its deliveries. Throws `WebhookNotFound`. */
  async delete(webhookId: string, options: CallOptions = {}): Promise<void> {
    await this.#calls.gone({ method: "DELETE", path: path(webhookId), ...options }, "webhook_not_found");
  }

  /**
   * Gives the webhook a new secret, which is not shown again. `overlap`: seconds for which the secret before is valid
   * too, 0 to 604,800; a day by default. A retry with the same `idempotencyKey` returns the same secret. If a server was
   * lost in between, a retry rotates again: then the secret that you had before is worthless at once. Throws
   * `WebhookNotFound`.
   */
  async rotate(webhookId: string, options: { overlap?: number | undefined } & KeyedOptions = {}): Promise<MadeWebhook> {
    const { signal, overlap, idempotencyKey = newKey() } = options;
    const call = {
      method: "POST",
      path: path(webhookId, "/rotate"),
      json: { overlap },
      signal,
      idempotencyKey,
    } as const;
    return await this.#calls.json<MadeWebhook>(call);
  }

  /**
   * Sends a `webhook.test` event to this webhook alone. Returns the event's id, and does not wait for it. Throws
   * `WebhookNotFound`, and `InvalidState` when the webhook is off.
   */
  async test(webhookId: string, options: CallOptions = {}): Promise<string> {
    const call = { method: "POST", path: path(webhookId, "/test"), ...options } as const;
    return (await this.#calls.json<{ eventId: string }>(call)).eventId;
  }

  /** Lists what was sent to a webhook and what waits, newest event first. Throws `WebhookNotFound`. */
  deliveries(webhookId: string, options: ListWebhooks = {}): Pages<Delivery> {
    const { pageSize, signal } = options;
    const of = path(webhookId, "/deliveries");
    return new Pages(
      async (offset) => {
        const query = { limit: pageSize, offset: offset || undefined };
        const call = { method: "GET", path: of, query, signal } as const;
        const { deliveries, total } = await this.#calls.json<{ deliveries: Delivery[]; total: number }>(call);
        return { items: deliveries, total };
      },
      ({ deliveryId }) => deliveryId,
    );
  }

  /**
   * Sends an event once more, with all its attempts, whatever came of it before. Throws `WebhookNotFound`,
   * `DeliveryNotFound`, and `InvalidState` when the webhook is off.
   */
  async redeliver(webhookId: string, deliveryId: string, options: CallOptions = {}): Promise<void> {
    const rest = `/deliveries/${encodeURIComponent(requireId(deliveryId, "deliveryId"))}/redeliver`;
    await this.#calls.json({ method: "POST", path: path(webhookId, rest), ...options });
  }
}

function path(webhookId: string, rest = ""): string {
  return `/webhooks/${encodeURIComponent(requireId(webhookId, "webhookId"))}${rest}`;
}
