/** The sessions of an account. */

import { newKey, type CallOptions, type Calls, type KeyedOptions } from "./calls.js";
import { isRecord } from "./errors.js";
import { Pages } from "./pages.js";
import { asMade } from "./made.js";
import type { MeasuredSession } from "./metrics_shapes.js";
import { Session, SessionHandle, pathOf } from "./session.js";
import { requireId } from "./arguments.js";
import type { CreateSession, CreatedShape, DeletedSession, SessionShape, SessionState } from "./shapes.js";

/** A session's id, in either form that calls take. `name:` and a session's name is taken in place of its id. */
export type SessionId = string | { sessionId: string };

interface WantedSessions extends CallOptions {
  /** Only the session of this name. */
  name?: string | undefined;
  /** Only sessions in this state. */
  state?: SessionState | undefined;
  /** Top-level values that must match; numbers and booleans by their JSON text. */
  metadata?: Record<string, string | number | boolean> | undefined;
}

export interface ListSessions extends WantedSessions {
  /** Sessions a request, 1 to 100; 50 by default. */
  pageSize?: number | undefined;
}

export interface ListMetrics extends WantedSessions {
  /** Sessions a request, 1 to 1,000; 100 by default. */
  pageSize?: number | undefined;
}

const EXISTING = "session-existing"; // a header

/** The sessions of an account. */
export class Sessions {
  readonly #calls: Calls;

  /** @internal */
  constructor(calls: Calls) {
    this.#calls = calls;
  }

  /**
   * Creates a session. An idempotency key is sent by default, so a retry creates nothing twice. `await using` deletes the
   * session at the end of the block. Throws `Forbidden` for a limit beyond the plan, `NameTaken`, `ImageNotFound`,
   * `SnapshotNotFound`, `SessionLimitExceeded`, and `Unavailable` when the server has no capacity.
   */
  async create(fields: CreateSession = {}, options: KeyedOptions = {}): Promise<Session> {
    const { signal, idempotencyKey = newKey() } = options;
    const call = { method: "POST", path: "/sessions/create", json: fields, signal, idempotencyKey } as const;
    return new Session(this.#calls, asMade(await this.#calls.json<CreatedShape>(call), fields));
  }

  /**
   * Returns the session of this name, or creates it. Many may call at once: they all get the same session. One that
   * exists (`existed`) stays as it is, and is not woken. It is returned also if the plan allows no more sessions. Except
   * its limits and times, its properties are undefined until you call `refresh()`. Throws what `create` throws, except
   * `NameTaken`.
   */
  async getOrCreate(fields: CreateSession & { name: string }, options: KeyedOptions = {}): Promise<Session> {
    const { signal, idempotencyKey = newKey() } = options;
    const json = { ...fields, onConflict: "return" };
    const call = { method: "POST", path: "/sessions/create", json, signal, idempotencyKey } as const;
    const { told, headers } = await this.#calls.jsonAndHeaders<CreatedShape>(call);
    const shape = headers.has(EXISTING) ? { ...told, name: fields.name } : asMade(told, fields);
    return new Session(this.#calls, shape);
  }

  /** Returns a session by its id. This does not wake it. Throws `SessionNotFound`. */
  async get(session: SessionId, options: CallOptions = {}): Promise<Session> {
    const path = pathOf(idOf(session));
    return new Session(this.#calls, await this.#calls.json<SessionShape>({ method: "GET", path, ...options }));
  }

  /** Returns a handle for a session by its id, without a request. */
  open(session: SessionId): SessionHandle {
    return new SessionHandle(this.#calls, idOf(session));
  }

  /** Lists sessions, newest first, page by page as you iterate. */
  list(options: ListSessions = {}): Pages<Session> {
    const { pageSize, signal } = options;
    const wanted = wantedOf(options);
    return new Pages(
      async (offset) => {
        const query = { ...wanted, limit: pageSize, offset: offset || undefined };
        const call = { method: "GET", path: "/sessions", query, signal } as const;
        const { sessions, total } = await this.#calls.json<{ sessions: SessionShape[]; total: number }>(call);
        return { items: sessions.map((shape) => new Session(this.#calls, shape)), total };
      },
      ({ id }) => id,
    );
  }

  /** Lists sessions with what each does now, newest first. The server looks inside none, and wakes none. */
  metrics(options: ListMetrics = {}): Pages<MeasuredSession> {
    const { pageSize, signal } = options;
    const wanted = wantedOf(options);
    return new Pages(
      async (offset) => {
        const query = { ...wanted, limit: pageSize, offset: offset || undefined };
        const call = { method: "GET", path: "/metrics/sessions", query, signal } as const;
        const { sessions, total } = await this.#calls.json<{ sessions: MeasuredSession[]; total: number }>(call);
        return { items: sessions, total };
      },
      ({ sessionId }) => sessionId,
    );
  }

  /** Deletes a session with its processes and files. Throws `SessionNotFound`. */
  async delete(session: SessionId, options: CallOptions = {}): Promise<DeletedSession> {
    const sessionId = idOf(session);
    const call = { method: "DELETE", path: pathOf(sessionId), ...options } as const;
    return (await this.#calls.gone<DeletedSession>(call, "session_not_found")) ?? { deleted: true, sessionId };
  }
}

function wantedOf({ state, name, metadata = {} }: WantedSessions) {
  const filters = Object.fromEntries(Object.entries(metadata).map(([key, value]) => [`metadata.${key}`, value]));
  return { state, name, ...filters };
}

function idOf(session: SessionId): string {
  return requireId(isRecord(session) ? session.sessionId : session, "sessionId");
}
