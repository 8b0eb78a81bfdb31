/** Processes: programs that keep running after the call that started them. */

import { checkTime, requireId } from "./arguments.js";
import { base64 } from "./base64.js";
import { requireContent } from "./bodies.js";
import { brokenStream, newKey, type Calls, type CallOptions, type KeyedOptions } from "./calls.js";
import type { BuntimeError } from "./errors.js";
import { toldBy } from "./events.js";
import { Pages } from "./pages.js";
import { delayBefore } from "./retries.js";
import type {
  Bytes,
  LogEvent,
  LogPage,
  ProcessExit,
  ProcessReason,
  ProcessShape,
  ProcessSignal,
  ProcessStatus,
} from "./shapes.js";
import { pause } from "./waiting.js";

/** Set exactly one of `port` and `output`. */
export interface WaitFor {
  /** Wait until a new socket in the session listens on this port. */
  port?: number | undefined;
  /** Wait until a line of its output matches this regular expression (ripgrep's syntax). */
  output?: string | undefined;
  /** Seconds to wait, 1 to 300; 30 by default. After that the process keeps running and its `ready` is false. */
  timeout?: number | undefined;
}

export interface StartOptions extends KeyedOptions {
  /** Variables for it. */
  env?: Record<string, string> | undefined;
  /** Relative to `/workspace`, or absolute; `/workspace` by default. */
  workingDir?: string | undefined;
  /** A label for people. */
  name?: string | undefined;
  /** Seconds after which the process is killed; none by default. */
  timeout?: number | undefined;
  /** Return when the process is ready; see its `ready`. */
  waitFor?: WaitFor | undefined;
}

/** A program with its options. Set exactly one of `command` and `code`. */
export interface StartProcess extends StartOptions {
  /** A line for bash. */
  command?: string | undefined;
  /** TypeScript or JavaScript. */
  code?: string | undefined;
}

/** The processes of one session. */
export class Processes {
  readonly #calls: Calls;
  readonly #sessionId: string;

  /** @internal */
  constructor(calls: Calls, sessionId: string) {
    this.#calls = calls;
    this.#sessionId = sessionId;
  }

  /**
   * Starts a command, or `{command}` or `{code}` with its options. An idempotency key is sent by default, so a retry
   * starts nothing twice. Throws `ResourceLimitExceeded` when the plan's processes are all running.
   */
  async start(program: string | StartProcess, options: StartOptions = {}): Promise<Process> {
    const given: StartProcess =
      typeof program === "string" ? { command: program, ...options } : { ...program, ...options };
    const { signal, idempotencyKey = newKey(), ...fields } = given;
    checkTime(fields.timeout, "timeout", "seconds");
    checkTime(fields.waitFor?.timeout, "waitFor.timeout", "seconds");
    const shape = await this.#calls.json<ProcessShape>({
      method: "POST",
      path: "/processes/start",
      json: { sessionId: this.#sessionId, ...fields },
      waits: fields.waitFor === undefined ? 0 : (fields.waitFor.timeout ?? 30),
      signal,
      idempotencyKey,
    });
    return new Process(this.#calls, this.#sessionId, shape);
  }

  /** Lists processes, newest first, including those that have ended. `pageSize`: 1 to 100; 50 by default. */
  list(options: { pageSize?: number | undefined } & CallOptions = {}): Pages<Process> {
    return new Pages(
      async (offset) => {
        const query = { sessionId: this.#sessionId, limit: options.pageSize, offset: offset || undefined };
        const { processes, total } = await this.#calls.json<{ processes: ProcessShape[]; total: number }>({
          method: "GET",
          path: "/processes/list",
          query,
          signal: options.signal,
        });
        return { items: processes.map((shape) => new Process(this.#calls, this.#sessionId, shape)), total };
      },
      ({ id }) => id,
    );
  }

  /** Returns a process by its id, even if it has ended. Throws `ProcessNotFound`. */
  async get(processId: string, options: CallOptions = {}): Promise<Process> {
    const query = { sessionId: this.#sessionId, processId: requireId(processId, "processId") };
    const shape = await this.#calls.json<ProcessShape>({ method: "GET", path: "/processes/get", query, ...options });
    return new Process(this.#calls, this.#sessionId, shape);
  }
}

const SHORTEST_LOOK = 50; // ms between two polls of a process
const LONGEST_LOOK = 3000; // polls count against the rate limit
/** ms allowed for a server restart. */
const AWAY = 60_000;
const LONGEST_PAUSE = 5000;
const MOST_DOUBLINGS = 16;
const STEADY = 30_000; // ms: a connection that lasted this long resets the count of failures

/** A process, as last seen. `refresh()` asks the server again. */
export class Process implements ProcessExit {
  readonly id: string;
  /** Its process id inside the session. */
  readonly pid!: number;
  readonly status!: ProcessStatus;
  /** 128 + signal if killed, 124 after its timeout; null while it runs or if it is lost. */
  readonly exitCode!: number | null;
  /** Why it ended, if it did not end by itself. */
  readonly reason!: ProcessReason | null;
  readonly startedAt!: string;
  readonly endedAt!: string | null;
  readonly command!: string;
  readonly name!: string | null;
  /** With `waitFor`: whether it became ready in time. */
  readonly ready: boolean | undefined;
  /** Whether it is not ready and something listened on `waitFor.port` before it started. */
  readonly portWasInUse: boolean = false;
  readonly #calls: Calls;
  readonly #sessionId: string;

  /** @internal */
  constructor(calls: Calls, sessionId: string, shape: ProcessShape) {
    this.id = shape.processId;
    this.#calls = calls;
    this.#sessionId = sessionId;
    this.#see(shape);
  }

  /** Asks the server for the process's current state. Throws `ProcessNotFound`. */
  async refresh(options: CallOptions = {}): Promise<this> {
    const query = { sessionId: this.#sessionId, processId: this.id };
    return this.#see(
      await this.#calls.json<ProcessShape>({ method: "GET", path: "/processes/get", query, ...options }),
    );
  }

  /**
   * Waits until the process has ended, without a time limit. The end is noticed at most 3 seconds later. This keeps its
   * session awake. Throws `ProcessNotFound`.
   */
  async wait(options: CallOptions = {}): Promise<this> {
    for (let look = SHORTEST_LOOK; ; look = Math.min(look * 1.5, LONGEST_LOOK)) {
      await this.refresh(options);
      if (this.status !== "running") return this;
      await pause(look, options.signal);
    }
  }

  /**
   * Writes to standard input, at most 1 MiB a call. `close`: close standard input afterwards. Throws `InvalidState` if
   * standard input is closed, `SessionBusy` if the process does not read, `ProcessNotFound`.
   */
  async input(data: string | Bytes, options: { close?: boolean | undefined } & CallOptions = {}): Promise<this> {
    const { signal, close } = options;
    const given = requireContent(data, "data");
    const content = typeof given === "string" ? { data: given } : { data: base64(given), encoding: "base64" };
    const json = { sessionId: this.#sessionId, processId: this.id, ...content, close };
    return this.#see(await this.#calls.json<ProcessShape>({ method: "POST", path: "/processes/input", json, signal }));
  }

  /** Closes standard input. */
  async closeInput(options: CallOptions = {}): Promise<this> {
    const json = { sessionId: this.#sessionId, processId: this.id, close: true };
    return this.#see(
      await this.#calls.json<ProcessShape>({ method: "POST", path: "/processes/input", json, ...options }),
    );
  }

  /**
   * Signals the process and everything that it started; `SIGTERM` by default. Throws `InvalidState` if the process has
   * ended, `ProcessNotFound`.
   */
  async signal(signal: ProcessSignal = "SIGTERM", options: CallOptions = {}): Promise<this> {
    const json = { sessionId: this.#sessionId, processId: this.id, signal };
    return this.#see(
      await this.#calls.json<ProcessShape>({ method: "POST", path: "/processes/signal", json, ...options }),
    );
  }

  /** Sends `SIGKILL`. */
  kill(options: CallOptions = {}): Promise<this> {
    return this.signal("SIGKILL", options);
  }

  /**
   * Returns a page of its output from `cursor` on; from the start by default. `limit`: about this many bytes; 262,144 by
   * default. Throws `ProcessNotFound`.
   */
  logs(options: { cursor?: number | undefined; limit?: number | undefined } & CallOptions = {}): Promise<LogPage> {
    const { signal, cursor, limit } = options;
    const query = { sessionId: this.#sessionId, processId: this.id, cursor, limit };
    return this.#calls.json({ method: "GET", path: "/processes/logs", query, signal });
  }

  /**
   * Streams its output from `cursor` on. The last event is its `exit`. A broken connection resumes where it stopped: no
   * output is lost or repeated. While the server restarts, reconnecting goes on for a minute. Throws `ConnectionFailed`
   * after that, and `ProcessNotFound`.
   */
  async *follow(
    options: { cursor?: number | undefined } & CallOptions = {},
  ): AsyncGenerator<LogEvent, void, undefined> {
    let cursor = options.cursor ?? 0;
    for (let failed = 0, waited = 0; ;) {
      const begun = performance.now();
      try {
        for await (const event of this.#followed(cursor, options.signal)) {
          failed = waited = 0;
          if (event.type !== "exit") cursor = event.cursor;
          yield event;
          if (event.type === "exit") return;
        }
        throw brokenStream();
      } catch (failure) {
        if (performance.now() - begun > STEADY) failed = waited = 0;
        failed += 1;
        const settings = this.#calls.settings;
        const first = delayBefore(failure, waited < AWAY ? 1 : failed, true, settings, Math.random());
        if (first === null || options.signal?.aborted) throw failure;
        const doubled = Math.max(first, SHORTEST_LOOK) * 2 ** Math.min(failed - 1, MOST_DOUBLINGS);
        const delay = Math.max(first, Math.min(doubled, LONGEST_PAUSE));
        settings.onRetry?.(failure as BuntimeError, failed, delay);
        waited += delay;
        await pause(delay, options.signal);
      }
    }
  }

  async *#followed(from: number, signal: AbortSignal | undefined): AsyncGenerator<LogEvent, void, undefined> {
    let cursor = from;
    let exit: LogEvent | null = null;
    const query = { sessionId: this.#sessionId, processId: this.id, cursor: from || undefined, follow: true };
    const call = { method: "GET", path: "/processes/logs", query, signal, isRetried: false } as const;
    for await (const event of this.#calls.events(call)) {
      const { name, id } = event;
      const told = toldBy(event);
      if (id !== "") cursor = Number(id);
      if (name === "exit") exit = { type: "exit", ...(told as unknown as ProcessExit) };
      else yield { type: name, ...told, cursor } as unknown as LogEvent;
    }
    if (exit === null) return;
    const { status, exitCode, reason } = exit as ProcessExit;
    this.#see({ status, exitCode, reason });
    yield exit;
  }

  #see(shape: Partial<ProcessShape>): this {
    const { processId: _, ...seen } = shape;
    return Object.assign(this, seen);
  }
}
