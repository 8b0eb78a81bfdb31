/** What sessions do over time, as JSON. */

import type { ResourceLimits, SessionState } from "./shapes.js";

export interface AskMetrics {
  /** At most a week ago; an hour before `to` by default. */
  from?: Date | string | undefined;
  /** Now by default. */
  to?: Date | string | undefined;
  /**
   * Seconds of each point, rounded up to a multiple of 10, or of 300 if `from` is more than a day ago. At most 500 points
   * by default.
   */
  step?: number | undefined;
}

/** What a session did. */
export interface Metrics {
  /** Of a point: where its step begins. Else: when it was measured. */
  time: string;
  /** How many were measured. */
  seconds: number;
  /** Cores on average. */
  cpu: number;
  /** Bytes, like the next one. */
  memory: number;
  disk: number;
  processes: number;
  /** Bytes in those seconds, like the next one. */
  bytesIn: number;
  bytesOut: number;
}

/** What a session did in one step. The most of each are those of the 10 seconds with the most. */
export interface MetricsPoint extends Metrics {
  cpuMax: number;
  memoryMax: number;
  diskMax: number;
  processesMax: number;
  /** Bytes a second, like the next one. */
  bytesInMax: number;
  bytesOutMax: number;
}

export interface SessionMetrics {
  sessionId: string;
  from: string;
  to: string;
  /** Seconds of each point. */
  step: number;
  /** A step in which the session did not run has no point. */
  points: MetricsPoint[];
}

/** A session and what it does now. */
export interface MeasuredSession {
  sessionId: string;
  name: string | null;
  state: SessionState;
  createdAt: string;
  expiresAt: string | null;
  lastActive: string;
  resourceLimits: ResourceLimits;
  /** Null if it sleeps, or has woken within the last 12 seconds. */
  metrics: Metrics | null;
}
