/** Runs: a request for the whole result, or a stream of events. */

import { brokenStream, type CallOptions, type Calls, type KeyedOptions } from "./calls.js";
import { InvalidRequest } from "./errors.js";
import { toldBy } from "./events.js";
import type { ExecuteRequest, ExecuteResponse, RunEvent, RunResult } from "./shapes.js";

/** Seconds: the longest that any plan runs a program whose request names no timeout. */
const LONGEST_RUN = 3600;

/** The reason with which a reader closes a stream. */
const CLOSED = new Error("The stream was closed.");

/** The session's timeout for runs in seconds, if known. */
export type SessionTimeout = number | undefined;

export function execute(
  calls: Calls,
  request: ExecuteRequest,
  options: KeyedOptions = {},
  session?: SessionTimeout,
): Promise<ExecuteResponse> {
  if ((request as { stream?: boolean }).stream)
    throw new InvalidRequest("execute returns the whole result: use stream(…) for events.", {
      code: "invalid_request",
      details: { field: "stream" },
    });
  const waits = request.timeout ?? session ?? LONGEST_RUN;
  return calls.json({ method: "POST", path: "/execute", json: request, waits, ...options });
}

export interface StreamOptions extends CallOptions {
  /** Run as a process. The first event gives its id, and leaving the stream does not end it. */
  detach?: boolean | undefined;
}

/**
 * Streams a run's events: `for await (const event of …)`. The last event is its `result`. Throws when a limit or the
 * end of the session stops the run. Leaving the loop, or `close()`, ends the run unless it is detached.
 */
export class RunStream implements AsyncIterable<RunEvent>, AsyncDisposable {
  readonly #events: AsyncGenerator<RunEvent, void, undefined>;
  readonly #left = new AbortController();

  /** @internal */
  constructor(calls: Calls, request: ExecuteRequest, options: StreamOptions) {
    const { signal, detach } = options;
    const json = { ...request, stream: true, detach };
    signal?.addEventListener("abort", () => this.#left.abort(signal.reason), { once: true, signal: this.#left.signal });
    if (signal?.aborted) this.#left.abort(signal.reason);
    this.#events = runEvents(calls, json, this.#left);
  }

  /** The request is sent when you ask for the first event. */
  [Symbol.asyncIterator](): AsyncGenerator<RunEvent, void, undefined> {
    return this.#events;
  }

  /** Reads to the end. `stdout` and `stderr` hold the output that you have not read yet. */
  async result(): Promise<ExecuteResponse> {
    const output = { stdout: "", stderr: "" };
    for await (const event of this.#events) {
      if (event.type === "stdout" || event.type === "stderr") output[event.type] += event.data;
      if (event.type !== "result") continue;
      const { type: _, ...result } = event;
      return { ...output, ...result };
    }
    throw brokenStream();
  }

  /** Ends the run, unless it is detached. */
  async close(): Promise<void> {
    this.#left.abort(CLOSED);
    await this.#events.return();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

async function* runEvents(
  calls: Calls,
  json: object,
  left: AbortController,
): AsyncGenerator<RunEvent, void, undefined> {
  let result: RunEvent | null = null;
  try {
    for await (const event of calls.events({ method: "POST", path: "/execute", json, signal: left.signal })) {
      const told = toldBy(event);
      // read on to the end, so that the connection can be reused
      if (event.name === "result") result = { type: "result", ...(told as unknown as RunResult) };
      else yield { type: event.name, ...told } as RunEvent;
    }
  } catch (failure) {
    if (failure === CLOSED) return;
    if (result === null) throw failure;
  } finally {
    left.abort(CLOSED); // releases the caller's signal too
  }
  if (result === null) throw brokenStream();
  yield result;
}
