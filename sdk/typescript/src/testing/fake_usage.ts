/**
 * What the fake's sessions used: seconds in their states, and runs. The rest is 0, because nothing really runs.
 */

import type { SessionState } from "../shapes.js";
import type { UsageAmounts, UsageGroup, UsageReport, UsageTotal, UsageWindow } from "../usage_shapes.js";
import { refuse } from "./answers.js";
import { stamp, type Clock, type FakeSession } from "./fake_session.js";

const DAY = 86_400_000;
const DEFAULT_DAYS = 30;
const CURSOR = /^uwc_([0-9a-f]{1,15})$/;
const FIELDS: Record<SessionState, "active" | "idle" | "deepSleep"> = {
  active: "active",
  idle: "idle",
  "deep-sleep": "deepSleep",
};
const NOTHING: UsageAmounts = {
  active: 0,
  idle: 0,
  deepSleep: 0,
  cpuSeconds: 0,
  memoryByteSeconds: 0,
  diskByteSeconds: 0,
  archivedByteSeconds: 0,
  bytesOut: 0,
  executions: 0,
};

/** Times are milliseconds since 1970. */
interface Window {
  readonly session: string;
  readonly ordinal: number;
  readonly state: SessionState;
  readonly begin: number;
  /** Runs of the session when the window began. */
  readonly runsBefore: number;
  end: number;
  runs: number;
}

export class FakeUsage {
  readonly #open = new Map<string, Window>();
  readonly #closed: Window[] = [];

  constructor(private readonly clock: Clock) {}

  /** Notes the states and runs of the sessions. Closes a window where a state has changed. */
  look(sessions: ReadonlyMap<string, FakeSession>): void {
    const now = this.clock().getTime();
    for (const [id, window] of this.#open) {
      const session = sessions.get(id);
      const isThere = session !== undefined && !session.isExpired;
      window.end =
        session === undefined ? now : Math.min(now, session.expiresAt === null ? now : Date.parse(session.expiresAt));
      if (isThere && session.shape.state === window.state) {
        window.runs = session.runsBegun - window.runsBefore;
        continue;
      }
      this.#closed.push(window);
      this.#open.delete(id);
      if (isThere) this.#begin(session, window.ordinal + 1, window.runsBefore + window.runs);
    }
    for (const session of sessions.values())
      if (!this.#open.has(session.id) && !session.isExpired) this.#begin(session, 1, 0);
  }

  windows(query: Record<string, string>): { windows: UsageWindow[]; cursor: string } {
    const after = Number.parseInt(CURSOR.exec(query.cursor ?? "uwc_0")?.[1] ?? "-1", 16);
    if (after < 0 || after > this.#closed.length)
      refuse("invalid_request", "cursor is not a cursor of windows.", { field: "cursor" });
    const page = this.#closed.slice(after, after + Number(query.limit ?? 100));
    return { windows: page.map(shown), cursor: `uwc_${(after + page.length).toString(16)}` };
  }

  get(query: Record<string, string>): UsageReport {
    const { sessionId, groupBy, cursor = "", limit = "100" } = query;
    const [first, last] = this.#days(query);
    const all = [...this.#closed, ...this.#open.values()];
    const windows = all.filter(({ session }) => sessionId === undefined || session === sessionId);
    if (sessionId !== undefined && windows.length === 0)
      refuse("session_not_found", "No session with this id.", { sessionId });
    const total = { ...NOTHING };
    const groups = new Map<string, UsageAmounts>();
    for (let day = first; day <= last; day += 1)
      for (const window of windows) {
        const used = within(window, day * DAY, (day + 1) * DAY);
        add(total, used);
        if (groupBy === undefined || !Object.values(used).some((amount) => amount > 0)) continue;
        const name = groupBy === "day" ? stamp(new Date(day * DAY)).slice(0, 10) : window.session;
        if (!groups.has(name)) groups.set(name, { ...NOTHING });
        add(groups.get(name)!, used);
      }
    const names = [...groups.keys()].filter((name) => name > cursor).sort();
    const page = groupBy === "day" ? names : names.slice(0, Number(limit));
    return {
      from: stamp(new Date(first * DAY)),
      to: stamp(new Date((last + 1) * DAY)),
      total: weighted(total),
      groups: page.map((name): UsageGroup => ({
        ...weighted(groups.get(name)!),
        ...(groupBy === "day" ? { day: name } : { sessionId: name }),
      })),
      cursor: page.length < names.length ? page.at(-1)! : null,
    };
  }

  #begin(session: FakeSession, ordinal: number, runsBefore: number): void {
    const begin = this.clock().getTime();
    const [{ id, runsBegun }, { state }] = [session, session.shape];
    const runs = runsBegun - runsBefore;
    this.#open.set(id, { session: id, ordinal, state, begin, runsBefore, end: begin, runs });
  }

  /** The first and the last day, from 1970. */
  #days({ from, to }: Record<string, string>): [number, number] {
    const until = to === undefined ? this.clock().getTime() : time("to", to);
    const last = Math.floor((until - 1) / DAY);
    const since = from === undefined ? (last - DEFAULT_DAYS + 1) * DAY : time("from", from);
    if (since >= until) refuse("invalid_request", "from must be before to.", { field: "from" });
    return [Math.floor(since / DAY), last];
  }
}

function time(field: string, text: string): number {
  const found = Date.parse(text);
  if (Number.isNaN(found)) refuse("invalid_request", `${field} must be a date or a time.`, { field });
  return found;
}

/** What of a window is between two times. Runs count when the window begins. */
function within({ state, begin, end, runs }: Window, since: number, until: number): UsageAmounts {
  const seconds = Math.max(0, Math.min(until, end) - Math.max(since, begin)) / 1000;
  return { ...NOTHING, [FIELDS[state]]: seconds, executions: since <= begin && begin < until ? runs : 0 };
}

function shown(window: Window): UsageWindow {
  const { session, ordinal, state, begin, end } = window;
  return {
    windowId: `win_${session.slice("ses_".length)}_${ordinal}`,
    sessionId: session,
    state,
    from: new Date(begin).toISOString(),
    to: new Date(end).toISOString(),
    ...within(window, begin, end),
    executions: window.runs,
  };
}

function add(total: UsageAmounts, used: UsageAmounts): void {
  for (const name of Object.keys(used) as (keyof UsageAmounts)[]) total[name] += used[name];
}

function weighted(used: UsageAmounts): UsageTotal {
  return { ...used, weightedSeconds: used.active + used.idle * 0.25 + used.deepSleep * 0.02 };
}
