/** Runs: a request for the whole result, or a stream of events. */

import { checkFunction, checkSignal, checkTime, refusal } from "./arguments.js";
import { brokenStream, type CallOptions, type Calls, type KeyedOptions } from "./calls.js";
import { toldBy } from "./events.js";
import { filesOnTheWire } from "./file_sets.js";
import { ExecutionResult } from "./results.js";
import type { ExecuteRequest, ExecuteResponse, Forms, RunEvent, RunResult } from "./shapes.js";

/** Seconds: the longest that any plan runs a program whose request names no timeout. */
const LONGEST_RUN = 3600;

/** The reason with which a reader closes a stream. */
const CLOSED = new Error("The stream was closed.");

type Ended = Extract<RunEvent, { type: "result" }>;

/** The session's timeout for runs in seconds, if known. */
export type SessionTimeout = number | undefined;

export interface OutputListeners {
  /** Called with each piece of standard output as it arrives. */
  onStdout?: ((data: string) => void | Promise<void>) | undefined;
  /** Called with each piece of standard error as it arrives. */
  onStderr?: ((data: string) => void | Promise<void>) | undefined;
}

/** With a listener the output is streamed: the result then has all of it, uncut, and `idempotencyKey` is refused. */
export interface ExecuteOptions extends KeyedOptions, OutputListeners {}

export async function execute(
  calls: Calls,
  request: ExecuteRequest,
  options: ExecuteOptions = {},
  session?: SessionTimeout,
): Promise<ExecutionResult> {
  const { onStdout, onStderr, ...keyed } = options;
  checkTime(request.timeout, "timeout", "seconds");
  checkListeners(options);
  if ((request as { stream?: boolean }).stream)
    throw refusal("stream", "execute returns the whole result: use stream(…) for events.");
  if (onStdout !== undefined || onStderr !== undefined) {
    if (keyed.idempotencyKey !== undefined)
      throw refusal("idempotencyKey", "idempotencyKey cannot be combined with onStdout or onStderr.");
    const stream = new RunStream(calls, request, { signal: keyed.signal });
    try {
      return await stream.result({ onStdout, onStderr });
    } finally {
      await stream.close();
    }
  }
  const json = { ...request, files: filesOnTheWire(request.files) };
  const waits = request.timeout ?? session ?? LONGEST_RUN;
  return new ExecutionResult(
    await calls.json<ExecuteResponse>({ method: "POST", path: "/execute", json, waits, ...keyed }),
  );
}

function checkListeners({ onStdout, onStderr }: OutputListeners): void {
  checkFunction(onStdout, "onStdout");
  checkFunction(onStderr, "onStderr");
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
  #result: Ended | null = null;

  /** @internal */
  constructor(calls: Calls, request: ExecuteRequest, options: StreamOptions) {
    const { signal, detach } = options;
    checkTime(request.timeout, "timeout", "seconds");
    checkSignal(signal);
    const json = { ...request, files: filesOnTheWire(request.files), stream: true, detach };
    signal?.addEventListener("abort", () => this.#left.abort(signal.reason), { once: true, signal: this.#left.signal });
    if (signal?.aborted) this.#left.abort(signal.reason);
    this.#events = runEvents(calls, json, this.#left, (result) => (this.#result = result));
  }

  /** The request is sent when you ask for the first event. */
  [Symbol.asyncIterator](): AsyncGenerator<RunEvent, void, undefined> {
    return this.#events;
  }

  /**
   * Reads to the end, if you have not. The result has the output, and the displayed values of a context, that you have
   * not read. The listeners hear that output as it arrives.
   */
  async result(listeners: OutputListeners = {}): Promise<ExecutionResult> {
    checkListeners(listeners);
    const output = { stdout: "", stderr: "" };
    const displayed: Forms[] = []; // of a context
    for await (const event of this.#events) {
      if (event.type === "stdout" || event.type === "stderr") {
        output[event.type] += event.data;
        await (event.type === "stdout" ? listeners.onStdout : listeners.onStderr)?.(event.data);
      }
      if (event.type === "displayed") {
        const { type: _, ...forms } = event;
        displayed.push(forms);
      }
    }
    if (this.#result === null) throw brokenStream();
    const { type: _, ...result } = this.#result;
    const shown = "result" in result ? { displayed } : {};
    return new ExecutionResult({ ...output, ...result, ...shown });
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

/** `ended`: gets the last event before the reader does. */
async function* runEvents(
  calls: Calls,
  json: object,
  left: AbortController,
  ended: (result: Ended) => void,
): AsyncGenerator<RunEvent, void, undefined> {
  let result: Ended | null = null;
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
  ended(result);
  yield result;
}
