/** A client without a server, for testing programs that use buntime. */

import { Buntime, type BuntimeOptions } from "../index.js";
import type { FakeFailure } from "./answers.js";
import { FakeTransport } from "./fake_transport.js";
import type { FakeRequest } from "./request.js";
import type { RunMatch, RunScript } from "./scripts.js";

export type { FakeFailure } from "./answers.js";
export type { FakeRequest } from "./request.js";
export type { FakeResult, FakeRun, RunMatch, RunScript } from "./scripts.js";

export interface FailOptions {
  /** How many calls fail; 1 by default. */
  times?: number | undefined;
  /** Do the work and lose only the response. */
  afterWork?: boolean | undefined;
}

/**
 * A `Buntime` without a server. Sessions, files, processes, contexts and terminals are in memory. Nothing runs: you
 * script what programs print. Calls work as with a server, including retries and errors; only the network is left out.
 */
export class FakeBuntime extends Buntime {
  readonly #transport: FakeTransport;

  constructor(options: Omit<BuntimeOptions, "transport" | "fetch"> = {}) {
    const transport = new FakeTransport();
    super({ apiKey: "btk_fake", baseUrl: "http://fake.invalid", retryDelay: 0, ...options, transport });
    this.#transport = transport;
  }

  /** The requests so far, oldest first. Each attempt is one request. */
  get calls(): readonly FakeRequest[] {
    return this.#transport.calls;
  }

  /**
   * Scripts the result of matching runs; by default, success without output. The newest matching script wins. A run
   * without a script fails with `InvalidRequest`. A process without one runs silently until it gets a signal.
   */
  onExecute(match: RunMatch, script: RunScript): this {
    this.#transport.scripts.add(match, script);
    return this;
  }

  /**
   * Makes the next calls fail. `call`: method and path, such as `POST /execute` or `GET /sessions/{id}`. The code
   * `connection_failed` means that the connection breaks, or with `details: { begun: false }` that there never was one.
   */
  fail(call: string, failure: FakeFailure, options: FailOptions = {}): this {
    const { times = 1, afterWork = false } = options;
    this.#transport.troubles.push({ call, failure, isLost: afterWork, times });
    return this;
  }

  /** Returns what was written to a process, one item a call. */
  inputOf(sessionId: string, processId: string): string[] {
    return this.#transport.sessions.get(sessionId)?.process(processId).input ?? [];
  }
}
