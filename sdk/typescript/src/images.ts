/** The images that sessions can stand on. */

import { requireId } from "./arguments.js";
import { newKey, type CallOptions, type Calls, type KeyedOptions } from "./calls.js";
import { Pages } from "./pages.js";
import type { CreateImage, Image } from "./kept_shapes.js";

export interface ListImages extends CallOptions {
  /** Images a request, 1 to 100; 50 by default. */
  pageSize?: number | undefined;
}

/** The images that sessions of the account can stand on. */
export class Images {
  readonly #calls: Calls;

  /** @internal */
  constructor(calls: Calls) {
    this.#calls = calls;
  }

  /** Lists images, sorted by name, page by page as you iterate. The server's own, `default`, is not listed. */
  list(options: ListImages = {}): Pages<Image> {
    const { pageSize, signal } = options;
    return new Pages(
      async (offset) => {
        const query = { limit: pageSize, offset: offset || undefined };
        const call = { method: "GET", path: "/images", query, signal } as const;
        const { images, total } = await this.#calls.json<{ images: Image[]; total: number }>(call);
        return { items: images, total };
      },
      ({ name }) => name,
    );
  }

  /**
   * Creates an image of the files of a session or a snapshot. Sessions on it start with them. If an image of the account
   * has the name, the new image takes it over. An idempotency key is sent by default, so a retry creates nothing twice.
   * Throws `SessionNotFound`, `SnapshotNotFound`, and
   * `ResourceLimitExceeded` when the plan has no room for another image.
   */
  async create(name: string, fields: CreateImage, options: KeyedOptions = {}): Promise<Image> {
    const { signal, idempotencyKey = newKey() } = options;
    const json = { name: requireId(name, "name"), ...fields };
    const call = { method: "POST", path: "/images/create", json, signal, idempotencyKey } as const;
    return await this.#calls.json<Image>(call);
  }

  /**
   * Deletes an image of the account. Sessions on it live on. Throws `ImageNotFound`, and `Forbidden` for an image of the
   * operator.
   */
  async delete(name: string, options: CallOptions = {}): Promise<void> {
    const path = `/images/${encodeURIComponent(requireId(name, "name"))}`;
    await this.#calls.gone({ method: "DELETE", path, ...options }, "image_not_found");
  }
}
