/** A client without a server, for testing programs that use buntime. */

import { Buntime, type BuntimeError, type BuntimeOptions, type EventType } from "../index.js";
import { scripted } from "./answers.js";
import { bytesOf } from "./fake_files.js";
import type { PreviewScript } from "./fake_previews.js";
import { FakeTransport, requireOperation } from "./fake_transport.js";
import type { FakeRequest } from "./request.js";
import type { RunMatch, RunScript } from "./scripts.js";

export type { PreviewAnswer, PreviewScript } from "./fake_previews.js";
export type { FakeRequest } from "./request.js";
export type { FakeResult, FakeRun, RunAnswer, RunKind, RunMatch, RunScript } from "./scripts.js";

export interface FakeOptions extends Omit<BuntimeOptions, "apiKey" | "baseUrl" | "fetch" | "transport"> {
  /** Returns the time by which sessions expire; the system's by default. */
  clock?: (() => Date) | undefined;
}

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

  /** Retries do not wait, except where the server asks for it. */
  constructor(options: FakeOptions = {}) {
    const { clock, ...rest } = options;
    const transport = new FakeTransport(clock);
    super({ retryDelay: 0, ...rest, apiKey: "btk_fake", baseUrl: "http://fake.invalid", transport });
    this.#transport = transport;
  }

  /** The requests so far, oldest first. Each attempt is one request. */
  get requests(): readonly FakeRequest[] {
    return this.#transport.requests;
  }

  /**
   * Scripts the result of matching runs. The newest matching script wins. A run without a script fails with
   * `InvalidRequest`. A process without one runs silently until it gets a signal.
   */
  onExecute(match: RunMatch, answer: RunScript): this {
    this.#transport.scripts.add(match, answer);
    return this;
  }

  /** Like `onExecute`, for processes only. They end after their output, unless the result is `running`. */
  onStart(match: RunMatch, answer: RunScript): this {
    this.#transport.scripts.add(match, answer, ["process"]);
    return this;
  }

  /** Scripts what a server on this port answers, in every session. On a port without a script nothing listens. */
  onFetch(port: number, answer: PreviewScript): this {
    this.#transport.servers.add(port, answer);
    return this;
  }

  /**
   * Makes the next calls of the API fail. `method`, `path`: such as `"POST", "/execute"` or `"GET", "/sessions/{id}"`.
   * `error`: the error to throw, or its code. `ConnectionFailed` means that the connection breaks, or with
   * `begun: false` that there never was one. Throws a TypeError for a code or an operation that the server does not have.
   */
  fail(method: string, path: string, error: BuntimeError | string, options: FailOptions = {}): this {
    const { times = 1, afterWork = false } = options;
    requireOperation(method, path);
    this.#transport.troubles.push({ method, path, error: scripted(error), isLost: afterWork, times });
    return this;
  }

  /** Adds an image, as an operator does: sessions can stand on it. */
  addImage(name: string, { sizeBytes = 0 }: { sizeBytes?: number | undefined } = {}): this {
    this.#transport.images.add(name, sizeBytes);
    return this;
  }

  /**
   * Adds an event, as a server does when it happens. The fake itself adds those of creates and deletions of sessions, of
   * ends of processes, of keys and of webhooks.
   */
  addEvent(
    type: EventType,
    { sessionId, data = {} }: { sessionId?: string | undefined; data?: Record<string, unknown> | undefined } = {},
  ): this {
    this.#transport.events.add(type, sessionId ?? null, data);
    return this;
  }

  /** Makes creates and forks beyond `most` sessions at a time fail with `SessionLimitExceeded`, as a plan does. */
  limitSessions(most: number): this {
    this.#transport.mostSessions = most;
    return this;
  }

  /** Returns what was written to a process. */
  inputOf(sessionId: string, processId: string): Uint8Array {
    return bytesOf(this.#transport.sessions.get(sessionId)?.process(processId).input ?? []);
  }
}
