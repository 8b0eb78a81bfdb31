/** Runs: one request to its end, or a stream of what happens. */

import { brokenStream, type CallOptions, type Calls, type KeyedOptions } from "./calls.js";
import { InvalidRequest } from "./errors.js";
import { toldBy } from "./events.js";
import type { ExecuteRequest, ExecuteResponse, RunEvent, RunResult } from "./shapes.js";

/** The most that a plan gives a run which names no timeout. */
const LONGEST_RUN = 3600;

/** Why a stream ends that its reader has closed. */
const CLOSED = new Error("The stream was closed.");

/** How much of a run's time is known: its own timeout, or that of its session. */
export type SessionTimeout = number | undefined;

export function execute(
  calls: Calls,
  request: ExecuteRequest,
  options: KeyedOptions = {},
  session?: SessionTimeout,
): Promise<ExecuteResponse> {
  if ((request as { stream?: boolean }).stream)
    throw new InvalidRequest("execute gives the result as a whole: use stream(…) for events.", {
      code: "invalid_request",
      details: { field: "stream" },
    });
  const waits = request.timeout ?? session ?? LONGEST_RUN;
  return calls.json({ method: "POST", path: "/execute", json: request, waits, ...options });
}

export interface StreamOptions extends CallOptions {
  /** Run as a process: it goes on when the stream is left. The first event tells its id. */
  detach?: boolean | undefined;
}

/**
 * A run as it happens: `for await (const event of …)`. The last event is the `result`; a run that a limit or the
 * session's end stops throws. Leaving the loop, or `close()`, ends the run, unless it is detached.
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

  /** Nothing is sent before the first one is asked for. */
  [Symbol.asyncIterator](): AsyncGenerator<RunEvent, void, undefined> {
    return this.#events;
  }

  /** Reads to the end. Output that was not read before is put together. */
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
      // the body is read to its end, so that the connection can be used again
      if (event.name === "result") result = { type: "result", ...(told as unknown as RunResult) };
      else yield { type: event.name, ...told } as RunEvent;
    }
  } catch (failure) {
    if (failure === CLOSED) return;
    if (result === null) throw failure;
  } finally {
    left.abort(CLOSED); // lets go of the caller's signal too
  }
  if (result === null) throw brokenStream();
  yield result;
}
