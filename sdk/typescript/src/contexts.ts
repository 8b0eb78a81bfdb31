/** Contexts: code that keeps its variables. */

import { newKey, type Calls, type CallOptions, type KeyedOptions } from "./calls.js";
import type { Evaluation } from "./results.js";
import { RunStream, execute, type ExecuteOptions, type SessionTimeout } from "./runs.js";
import type { ContextEntry, ContextShape, FileSet } from "./shapes.js";
import { requireId, requireString } from "./arguments.js";

export interface CreateContext extends KeyedOptions {
  /** Environment variables for all runs in the context. */
  env?: Record<string, string> | undefined;
  /** Relative to `/workspace`, or absolute; `/workspace` by default. */
  workingDir?: string | undefined;
}

export interface EvaluateOptions extends ExecuteOptions {
  /** Written before the run, all or none. */
  files?: FileSet | undefined;
  /** Seconds that the run may take; the session's by default. */
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

  /**
   * Creates a context. An idempotency key is sent by default, so a retry creates nothing twice. Throws
   * `ResourceLimitExceeded`.
   */
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

  /** Returns a handle for an existing context, without a request. */
  open(contextId: string): Context {
    return new Context(this.#calls, this.#sessionId, requireId(contextId, "contextId"), this.#timeout);
  }

  /** Lists the contexts, oldest first, including the 200 lost most recently. */
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

/** One long-lived program: names declared at the top level of one run exist in the next. `await using` deletes it. */
export class Context implements AsyncDisposable {
  readonly id: string;
  /** Undefined if the context was opened by its id. */
  readonly createdAt: string | undefined;
  /** Undefined if the context was opened by its id. */
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

  /**
   * Executes code in the context. What it throws is the result's `error`. Throws `ContextLost` when the context's
   * variables are gone.
   */
  async execute(code: string, options: EvaluateOptions = {}): Promise<Evaluation> {
    const { signal, idempotencyKey, onStdout, onStderr, ...fields } = options;
    requireString(code, "code");
    const request = { sessionId: this.#sessionId, contextId: this.id, code, ...fields };
    const heard = { signal, idempotencyKey, onStdout, onStderr };
    const done = await execute(this.#calls, request, heard, this.#timeout);
    return done as Evaluation;
  }

  /** Executes code in the context and streams what it prints and displays. */
  stream(code: string, options: Omit<EvaluateOptions, "idempotencyKey" | "onStdout" | "onStderr"> = {}): RunStream {
    const { signal, ...fields } = options;
    requireString(code, "code");
    return new RunStream(this.#calls, { sessionId: this.#sessionId, contextId: this.id, code, ...fields }, { signal });
  }

  /** Ends the context. Throws `ContextNotFound`. */
  async delete(options: CallOptions = {}): Promise<void> {
    const query = { sessionId: this.#sessionId, contextId: this.id };
    await this.#calls.gone({ method: "DELETE", path: "/contexts/delete", query, ...options }, "context_not_found");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.delete();
  }
}
