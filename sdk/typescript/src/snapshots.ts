/** The snapshots of an account. `session.snapshot` takes one. */

import { requireId } from "./arguments.js";
import type { CallOptions, Calls } from "./calls.js";
import { Pages } from "./pages.js";
import type { Snapshot } from "./kept_shapes.js";

export interface ListSnapshots extends CallOptions {
  /** Only snapshots of this session. */
  sessionId?: string | undefined;
  /** Only snapshots with this name. */
  name?: string | undefined;
  /** Snapshots a request, 1 to 100; 50 by default. */
  pageSize?: number | undefined;
}

/** The snapshots of an account. `session.snapshot` takes one. */
export class Snapshots {
  readonly #calls: Calls;

  /** @internal */
  constructor(calls: Calls) {
    this.#calls = calls;
  }

  /**
   * Lists snapshots, newest first, page by page as you iterate. Those named `before-restore` were taken by
   * `session.restore`.
   */
  list(options: ListSnapshots = {}): Pages<Snapshot> {
    const { sessionId, name, pageSize, signal } = options;
    return new Pages(
      async (offset) => {
        const query = { sessionId, name, limit: pageSize, offset: offset || undefined };
        const call = { method: "GET", path: "/snapshots", query, signal } as const;
        const { snapshots, total } = await this.#calls.json<{ snapshots: Snapshot[]; total: number }>(call);
        return { items: snapshots, total };
      },
      ({ snapshotId }) => snapshotId,
    );
  }

  /** Returns a snapshot by its id. Throws `SnapshotNotFound`. */
  async get(snapshotId: string, options: CallOptions = {}): Promise<Snapshot> {
    return await this.#calls.json<Snapshot>({ method: "GET", path: pathOf(snapshotId), ...options });
  }

  /** Deletes a snapshot. Sessions and images that were made of it live on. Throws `SnapshotNotFound`. */
  async delete(snapshotId: string, options: CallOptions = {}): Promise<void> {
    await this.#calls.gone({ method: "DELETE", path: pathOf(snapshotId), ...options }, "snapshot_not_found");
  }
}

function pathOf(snapshotId: string): string {
  return `/snapshots/${encodeURIComponent(requireId(snapshotId, "snapshotId"))}`;
}
