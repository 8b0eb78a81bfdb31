/** Contexts: code that keeps its variables. */

import { newKey, type Calls, type CallOptions, type KeyedOptions } from "./calls.js";
import { RunStream, execute, type SessionTimeout } from "./runs.js";
import type { ContextEntry, ContextShape, Evaluation, File } from "./shapes.js";

export interface CreateContext extends KeyedOptions {
  /** For all of its runs. */
  env?: Record<string, string> | undefined;
  workingDir?: string | undefined;
}

export interface EvaluateOptions extends KeyedOptions {
  files?: File[] | undefined;
  /** Seconds */
  timeout?: number | undefined;
}

/** The contexts of one session. */
export class Contexts {
  readonly #calls: Calls;
  readonly #sessionId: string;
  readonly #timeout: SessionTimeout;

  /** @internal */
  constructor(calls: Calls, sessionId: string, timeout: SessionTimeout) {
    this.#calls = calls;
    this.#sessionId = sessionId;
    this.#timeout = timeout;
  }

  /** A new one, made once however often the call is repeated on the way. */
  async create(options: CreateContext = {}): Promise<Context> {
    const { signal, idempotencyKey = newKey(), ...fields } = options;
    const json = { sessionId: this.#sessionId, ...fields };
    const made = await this.#calls.json<ContextShape>({
      method: "POST",
      path: "/contexts/create",
      json,
      signal,
      idempotencyKey,
    });
    return new Context(this.#calls, this.#sessionId, made.contextId, this.#timeout, made);
  }

  /** A context that is there already, without a request. */
  open(contextId: string): Context {
    return new Context(this.#calls, this.#sessionId, contextId, this.#timeout);
  }

  /** Oldest first; lost ones until they are deleted. */
  async list(options: CallOptions = {}): Promise<ContextEntry[]> {
    const query = { sessionId: this.#sessionId };
    const { contexts } = await this.#calls.json<{ contexts: ContextEntry[] }>({
      method: "GET",
      path: "/contexts/list",
      query,
      ...options,
    });
    return contexts;
  }
}

/** One long-lived program: top-level names of one run are there in the next. `await using` deletes it. */
export class Context implements AsyncDisposable {
  readonly id: string;
  /** Undefined where it was opened by its id. */
  readonly createdAt: string | undefined;
  /** Undefined where it was opened by its id. */
  readonly workingDir: string | undefined;
  readonly #calls: Calls;
  readonly #sessionId: string;
  readonly #timeout: SessionTimeout;

  /** @internal */
  constructor(calls: Calls, sessionId: string, id: string, timeout: SessionTimeout, made?: ContextShape) {
    this.id = id;
    this.createdAt = made?.createdAt;
    this.workingDir = made?.workingDir;
    this.#calls = calls;
    this.#sessionId = sessionId;
    this.#timeout = timeout;
  }

  /** Runs the code. What it throws is `error` of the result; a context that is gone is `ContextLost`. */
  async run(code: string, options: EvaluateOptions = {}): Promise<Evaluation> {
    const { signal, idempotencyKey, ...fields } = options;
    const request = { sessionId: this.#sessionId, contextId: this.id, code, ...fields };
    const done = await execute(this.#calls, request, { signal, idempotencyKey }, this.#timeout);
    return done as Evaluation;
  }

  /** Runs the code and tells what it prints and displays as it happens. */
  stream(code: string, options: Omit<EvaluateOptions, "idempotencyKey"> = {}): RunStream {
    const { signal, ...fields } = options;
    return new RunStream(this.#calls, { sessionId: this.#sessionId, contextId: this.id, code, ...fields }, { signal });
  }

  /** Ends it. */
  async delete(options: CallOptions = {}): Promise<void> {
    const query = { sessionId: this.#sessionId, contextId: this.id };
    await this.#calls.gone({ method: "DELETE", path: "/contexts/delete", query, ...options }, "context_not_found");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.delete();
  }
}
