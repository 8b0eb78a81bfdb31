/** The account's API keys. */

import { requireId } from "./arguments.js";
import { newKey, type CallOptions, type Calls, type KeyedOptions } from "./calls.js";
import { Pages } from "./pages.js";
import type { CreateKey, Key, MadeKey } from "./account_shapes.js";

export interface ListKeys extends CallOptions {
  /** Keys a request, 1 to 100; 50 by default. */
  pageSize?: number | undefined;
}

/** The API keys of the account. They need the scopes `account:read` and `account:write`. */
export class Keys {
  readonly #calls: Calls;

  /** @internal */
  constructor(calls: Calls) {
    this.#calls = calls;
  }

  /** Lists the valid keys, oldest first, page by page as you iterate, without their secrets. */
  list(options: ListKeys = {}): Pages<Key> {
    const { pageSize, signal } = options;
    return new Pages(
      async (offset) => {
        const query = { limit: pageSize, offset: offset || undefined };
        const call = { method: "GET", path: "/keys", query, signal } as const;
        const { keys, total } = await this.#calls.json<{ keys: Key[]; total: number }>(call);
        return { items: keys, total };
      },
      ({ keyId }) => keyId,
    );
  }

  /**
   * Creates a key. Its `key` is the secret, which is not shown again. An idempotency key is sent by default, so a retry
   * creates nothing twice. Throws `Forbidden` when your key may not give a scope, and `ResourceLimitExceeded` beyond
   * 100 valid keys.
   */
  async create(fields: CreateKey = {}, options: KeyedOptions = {}): Promise<MadeKey> {
    const { signal, idempotencyKey = newKey() } = options;
    const call = { method: "POST", path: "/keys/create", json: fields, signal, idempotencyKey } as const;
    return await this.#calls.json<MadeKey>(call);
  }

  /** Revokes a key: its calls are refused from now on. Throws `KeyNotFound`. */
  async delete(keyId: string, options: CallOptions = {}): Promise<void> {
    const path = `/keys/${encodeURIComponent(requireId(keyId, "keyId"))}`;
    await this.#calls.gone({ method: "DELETE", path, ...options }, "key_not_found");
  }
}
