/** What the server returns for usage, as JSON. */

import type { SessionState } from "./shapes.js";

export interface UsageAmounts {
  /** Seconds in this state. */
  active: number;
  idle: number;
  deepSleep: number;
  /** Processor time of programs. */
  cpuSeconds: number;
  /** Bytes times seconds. */
  memoryByteSeconds: number;
  diskByteSeconds: number;
  archivedByteSeconds: number;
  /** That left the session, to the server too. */
  bytesOut: number;
  /** Runs that have begun. */
  executions: number;
}

export interface UsageTotal extends UsageAmounts {
  /** The seconds in the three states, each times the rate of the account's plan. */
  weightedSeconds: number;
}

/** What one session used, or all on one day. */
export interface UsageGroup extends UsageTotal {
  sessionId?: string;
  /** A date in UTC. */
  day?: string;
}

/** What was used in whole days. */
export interface UsageReport {
  /** The beginning of the first day that was counted. */
  from: string;
  /** The end of the last day that was counted. */
  to: string;
  total: UsageTotal;
  /** By day or session, if you asked for them. */
  groups: UsageGroup[];
  /** Where the next page of sessions begins. Null if there are no more. */
  cursor: string | null;
}

/** What a session used while it was in one state. It never changes. */
export interface UsageWindow extends UsageAmounts {
  windowId: string;
  /** The session, which may be gone. */
  sessionId: string;
  state: SessionState;
  /** What the host's clock said, which may have been set meanwhile: bill by the seconds. */
  from: string;
  to: string;
}
