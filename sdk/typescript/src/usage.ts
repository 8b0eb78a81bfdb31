/** What the account used. */

import type { CallOptions, Calls } from "./calls.js";
import { CursorPages, type AfterCursor } from "./cursors.js";
import type { UsageGroup, UsageReport, UsageWindow } from "./usage_shapes.js";

export interface UsageTimes extends CallOptions {
  /** A `Date`, or a date such as `2024-01-19`. Rounded down to its day in UTC; 30 days before `to` by default. */
  from?: Date | string | undefined;
  /** The same, rounded up to the end of its day. A date is its midnight. By default now. */
  to?: Date | string | undefined;
  /** Sessions a request, 1 to 100; 100 by default. */
  pageSize?: number | undefined;
  /** That of the page of sessions before. */
  cursor?: string | undefined;
}

export interface GetUsage extends UsageTimes {
  /** Only this session, which may be gone. */
  sessionId?: string | undefined;
  /** Fills `groups` with days, or with one page of sessions by id. */
  groupBy?: "session" | "day" | undefined;
}

export interface ListWindows extends CallOptions {
  /** Where to go on, from an earlier list. By default at the oldest window that is kept. */
  cursor?: string | undefined;
  /** Windows a request, 1 to 1000; 100 by default. */
  pageSize?: number | undefined;
}

/** What the account used, by the kernel's counters. It needs the scope `account:read`. */
export class Usage {
  readonly #calls: Calls;

  /** @internal */
  constructor(calls: Calls) {
    this.#calls = calls;
  }

  /** Adds up what was used in whole days in UTC, at most 400. Throws `SessionNotFound`. */
  async get(options: GetUsage = {}): Promise<UsageReport> {
    const { from, to, sessionId, groupBy, pageSize, cursor, signal } = options;
    const query = { from: text(from), to: text(to), sessionId, groupBy, limit: pageSize, cursor };
    return await this.#calls.json<UsageReport>({ method: "GET", path: "/usage", query, signal });
  }

  /** Lists what each session used, by id, with those that are gone. */
  sessions(options: UsageTimes = {}): CursorPages<UsageGroup> {
    const fetch = async (cursor: string | undefined): Promise<AfterCursor<UsageGroup>> => {
      const told = await this.get({ ...options, groupBy: "session", cursor });
      return { items: told.groups, cursor: told.cursor };
    };
    return new CursorPages(fetch, options.cursor);
  }

  /** Lists the closed windows, oldest first. They never change, and each has an id of its own. */
  windows(options: ListWindows = {}): CursorPages<UsageWindow> {
    const { pageSize, signal } = options;
    const fetch = async (cursor: string | undefined): Promise<AfterCursor<UsageWindow>> => {
      const call = { method: "GET", path: "/usage/windows", query: { cursor, limit: pageSize }, signal } as const;
      const told = await this.#calls.json<{ windows: UsageWindow[]; cursor: string }>(call);
      return { items: told.windows, cursor: told.cursor };
    };
    return new CursorPages(fetch, options.cursor);
  }
}

function text(time: Date | string | undefined): string | undefined {
  return time instanceof Date ? time.toISOString() : time;
}
