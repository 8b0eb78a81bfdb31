/** What happened in the account. */

import { brokenStream, type CallOptions, type Calls } from "./calls.js";
import type { BuntimeError } from "./errors.js";
import type { AccountEvent, EventPage, EventType, FollowedEvent } from "./event_shapes.js";
import { toldBy } from "./events.js";
import { delayBefore } from "./retries.js";
import { pause } from "./waiting.js";

export interface WantedEvents extends CallOptions {
  /** Only events of this session, which may be gone. */
  sessionId?: string | undefined;
  /** Only events of this type. */
  type?: EventType | undefined;
  /** Where to begin. */
  cursor?: string | undefined;
}

export interface ListEvents extends WantedEvents {
  /** Events a page, 1 to 1,000; 100 by default. */
  limit?: number | undefined;
}

/** ms allowed for a server restart. */
const AWAY = 60_000;
const [SHORTEST_PAUSE, LONGEST_PAUSE, MOST_DOUBLINGS] = [50, 5000, 16];
const STEADY = 30_000; // ms: a connection that lasted this long resets the count of failures

/** The events of the account: what happened, and who caused it. They need the scope `account:read`. */
export class Events {
  readonly #calls: Calls;

  /** @internal */
  constructor(calls: Calls) {
    this.#calls = calls;
  }

  /**
   * Returns a page of events, oldest first; from the oldest that is kept by default. Its `cursor` is where the next page
   * begins. Events are kept for 30 days.
   */
  list(options: ListEvents = {}): Promise<EventPage> {
    const { signal, ...query } = options;
    return this.#calls.json<EventPage>({ method: "GET", path: "/events", query: { ...query }, signal });
  }

  /**
   * Streams events as they happen, without an end; from now on by default. A broken connection resumes where it stopped:
   * no event is lost or repeated. While the server restarts, reconnecting goes on for a minute. Throws
   * `ConnectionFailed` after that, and `ResourceLimitExceeded` when the account has too many open streams.
   */
  async *follow(options: WantedEvents = {}): AsyncGenerator<FollowedEvent, void, undefined> {
    const { signal, ...query } = options;
    for (let failed = 0, waited = 0; ;) {
      const begun = performance.now();
      try {
        const call = { method: "GET", path: "/events", query: { ...query, follow: true }, signal } as const;
        for await (const event of this.#calls.events({ ...call, isRetried: false })) {
          failed = waited = 0;
          const told = toldBy(event);
          if (event.id !== "") query.cursor = event.id;
          if (event.name === "event") yield { ...(told as unknown as AccountEvent), cursor: event.id };
        }
        throw brokenStream();
      } catch (failure) {
        if (performance.now() - begun > STEADY) failed = waited = 0;
        failed += 1;
        const settings = this.#calls.settings;
        const first = delayBefore(failure, waited < AWAY ? 1 : failed, true, settings, Math.random());
        if (first === null || signal?.aborted) throw failure;
        const doubled = Math.max(first, SHORTEST_PAUSE) * 2 ** Math.min(failed - 1, MOST_DOUBLINGS);
        const delay = Math.max(first, Math.min(doubled, LONGEST_PAUSE));
        settings.onRetry?.(failure as BuntimeError, failed, delay);
        waited += delay;
        await pause(delay, signal);
      }
    }
  }
}
