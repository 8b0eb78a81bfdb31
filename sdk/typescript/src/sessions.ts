/** The sessions of an account. */

import { newKey, type CallOptions, type Calls, type KeyedOptions } from "./calls.js";
import { isRecord } from "./errors.js";
import { Pages } from "./pages.js";
import { asMade } from "./made.js";
import { Session, SessionHandle } from "./session.js";
import { requireId } from "./arguments.js";
import type { CreateSession, CreatedShape, DeletedSession, SessionShape, SessionState } from "./shapes.js";

/** A session's id, in either form that calls take. */
export type SessionId = string | { sessionId: string };

export interface ListSessions extends CallOptions {
  /** Only sessions in this state. */
  state?: SessionState | undefined;
  /** Top-level values that must match; numbers and booleans by their JSON text. */
  metadata?: Record<string, string | number | boolean> | undefined;
  /** Sessions a request, 1 to 100; 50 by default. */
  pageSize?: number | undefined;
}

/** The sessions of an account. */
export class Sessions {
  readonly #calls: Calls;

  /** @internal */
  constructor(calls: Calls) {
    this.#calls = calls;
  }

  /**
   * Creates a session. An idempotency key is sent by default, so a retry creates nothing twice. `await using` deletes the
   * session at the end of the block. Throws `Forbidden` for a limit beyond the plan, `ImageNotFound`,
   * `SnapshotNotFound`, `SessionLimitExceeded`, and `Unavailable` when the server has no capacity.
   */
  async create(fields: CreateSession = {}, options: KeyedOptions = {}): Promise<Session> {
    const { signal, idempotencyKey = newKey() } = options;
    const call = { method: "POST", path: "/sessions/create", json: fields, signal, idempotencyKey } as const;
    return new Session(this.#calls, asMade(await this.#calls.json<CreatedShape>(call), fields));
  }

  /** Returns a session by its id. This does not wake it. Throws `SessionNotFound`. */
  async get(session: SessionId, options: CallOptions = {}): Promise<Session> {
    const path = `/sessions/${encodeURIComponent(idOf(session))}`;
    return new Session(this.#calls, await this.#calls.json<SessionShape>({ method: "GET", path, ...options }));
  }

  /** Returns a handle for a session by its id, without a request. */
  open(session: SessionId): SessionHandle {
    return new SessionHandle(this.#calls, idOf(session));
  }

  /** Lists sessions, newest first, page by page as you iterate. */
  list(options: ListSessions = {}): Pages<Session> {
    const { state, metadata = {}, pageSize, signal } = options;
    const filters = Object.fromEntries(Object.entries(metadata).map(([name, value]) => [`metadata.${name}`, value]));
    return new Pages(
      async (offset) => {
        const query = { state, ...filters, limit: pageSize, offset: offset || undefined };
        const call = { method: "GET", path: "/sessions", query, signal } as const;
        const { sessions, total } = await this.#calls.json<{ sessions: SessionShape[]; total: number }>(call);
        return { items: sessions.map((shape) => new Session(this.#calls, shape)), total };
      },
      ({ id }) => id,
    );
  }

  /** Deletes a session with its processes and files. Throws `SessionNotFound`. */
  async delete(session: SessionId, options: CallOptions = {}): Promise<DeletedSession> {
    const sessionId = idOf(session);
    const call = { method: "DELETE", path: `/sessions/${encodeURIComponent(sessionId)}`, ...options } as const;
    return (await this.#calls.gone<DeletedSession>(call, "session_not_found")) ?? { deleted: true, sessionId };
  }
}

function idOf(session: SessionId): string {
  return requireId(isRecord(session) ? session.sessionId : session, "sessionId");
}
