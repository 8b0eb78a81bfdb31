/** How a run ended, with what it printed. */

import { ExecutionFailed } from "./errors.js";
import type { ExecuteResponse, Forms, Thrown } from "./shapes.js";

/** The result of a run. A failing program is a result too: see `ok`, `exitCode` and `check()`. */
export class ExecutionResult implements ExecuteResponse {
  declare readonly stdout: string;
  declare readonly stderr: string;
  /** 128 + signal if killed, 124 on timeout. */
  declare readonly exitCode: number;
  /** Milliseconds of elapsed time. */
  declare readonly executionTime: number;
  /** Peak bytes. */
  declare readonly memoryUsed: number;
  /** Milliseconds of CPU time. */
  declare readonly cpuTime: number;
  declare readonly timedOut: boolean;
  /** Relative to `/workspace`. */
  declare readonly filesWritten: string[];
  /** Set only if the output was cut. */
  declare readonly truncated?: boolean;
  /** Set only if the list was cut. */
  declare readonly filesWrittenTruncated?: boolean;
  /**
   * Set only if the run reached the limit of 448 processes and threads, or the session its limit of 512; everything
   * that the run started was killed.
   */
  declare readonly processLimitExceeded?: boolean;
  /** In a context: the value of the last expression, or null if it was undefined. */
  declare readonly result?: Forms | null;
  /** In a context: the values passed to `display(value)`. */
  declare readonly displayed?: Forms[];
  /** In a context: what the code threw. */
  declare readonly error?: Thrown;
  /** In a context: set when the run was stopped; whether the context kept its variables. */
  declare readonly contextSurvived?: boolean;

  /** @internal */
  constructor(response: ExecuteResponse) {
    Object.assign(this, response);
  }

  /** Whether the program ended in time with exit code 0. */
  get ok(): boolean {
    return this.exitCode === 0 && !this.timedOut;
  }

  /** Returns the result itself if it is `ok`. Throws `ExecutionFailed`, which shows the end of the output. */
  check(): this {
    if (!this.ok) throw new ExecutionFailed(this);
    return this;
  }
}

/** The result of a run in a context. */
export interface Evaluation extends ExecutionResult {
  readonly result: Forms | null;
  readonly displayed: Forms[];
}
