/** For tests of programs that use buntime: a client that needs no server. */

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
  /** The work is done, and only its answer lost. */
  afterWork?: boolean | undefined;
}

/**
 * A `Buntime` whose sessions, files, processes, contexts and terminals are in memory. What programs print is scripted:
 * nothing is run. Calls are made as they are to a server, with retries and errors; only the network is left out.
 */
export class FakeBuntime extends Buntime {
  readonly #transport: FakeTransport;

  constructor(options: Omit<BuntimeOptions, "transport" | "fetch"> = {}) {
    const transport = new FakeTransport();
    super({ apiKey: "btk_fake", baseUrl: "http://fake.invalid", retryDelay: 0, ...options, transport });
    this.#transport = transport;
  }

  /** What was asked, oldest first; each attempt is one. */
  get calls(): readonly FakeRequest[] {
    return this.#transport.calls;
  }

  /**
   * What a run gives: a success without output, but for what is named. Of several that match the newest counts. A run
   * for which nothing is scripted fails with `InvalidRequest`; a process goes on silently until it gets a signal.
   */
  onExecute(match: RunMatch, script: RunScript): this {
    this.#transport.scripts.add(match, script);
    return this;
  }

  /**
   * The next calls fail. `call`: method and path, such as `POST /execute` or `GET /sessions/{id}`. The code
   * `connection_failed` is a connection that breaks; `details: { begun: false }` one that was never there.
   */
  fail(call: string, failure: FakeFailure, options: FailOptions = {}): this {
    const { times = 1, afterWork = false } = options;
    this.#transport.troubles.push({ call, failure, isLost: afterWork, times });
    return this;
  }

  /** What was written to a process, in the order of the calls. */
  inputOf(sessionId: string, processId: string): string[] {
    return this.#transport.sessions.get(sessionId)?.process(processId).input ?? [];
  }
}
