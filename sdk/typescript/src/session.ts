/** One session, and all that is done in it. */

import { newKey, type CallOptions, type Calls, type KeyedOptions } from "./calls.js";
import { Contexts } from "./contexts.js";
import { SessionNotFound } from "./errors.js";
import { Files } from "./files.js";
import { Processes } from "./processes.js";
import { RunStream, execute, type SessionTimeout, type StreamOptions } from "./runs.js";
import type {
  CreatedShape,
  ExecuteResponse,
  NetworkSettings,
  PreviewSettings,
  PreviewToken,
  ResourceLimits,
  RunOptions,
  SessionShape,
  SessionState,
  UpdateSession,
} from "./shapes.js";
import { openTerminal, type Terminal, type TerminalOptions } from "./terminal.js";

/** A session by its id: everything that needs no answer about it. */
export class SessionHandle implements AsyncDisposable {
  readonly id: string;
  readonly #calls: Calls;

  /** @internal */
  constructor(calls: Calls, id: string) {
    this.id = id;
    this.#calls = calls;
  }

  /** Its files. */
  get files(): Files {
    return new Files(this.#calls, this.id);
  }

  /** Programs that go on beside the calls. */
  get processes(): Processes {
    return new Processes(this.#calls, this.id);
  }

  /** Code that keeps its variables. */
  get contexts(): Contexts {
    return new Contexts(this.#calls, this.id, this.runTimeout());
  }

  /** Runs TypeScript or JavaScript to its end. A program that fails is a result with its `exitCode`. */
  execute(code: string, options: RunOptions & KeyedOptions = {}): Promise<ExecuteResponse> {
    return this.#run({ code }, options);
  }

  /** Runs a command by `bash -c` to its end. */
  run(command: string, options: RunOptions & KeyedOptions = {}): Promise<ExecuteResponse> {
    return this.#run({ command }, options);
  }

  /** Runs code and tells what it prints as it happens. */
  stream(code: string, options: RunOptions & StreamOptions = {}): RunStream {
    return this.#stream({ code }, options);
  }

  /** Runs a command and tells what it prints as it happens. */
  streamCommand(command: string, options: RunOptions & StreamOptions = {}): RunStream {
    return this.#stream({ command }, options);
  }

  /** A shell. Not in browsers. */
  terminal(options: TerminalOptions = {}): Promise<Terminal> {
    return openTerminal(this.#calls, this.id, options);
  }

  /** A token for the preview of one port, or of all where none is named. `ttl`: seconds, from 60. */
  previewToken(
    options: { port?: number | undefined; ttl?: number | undefined } & KeyedOptions = {},
  ): Promise<PreviewToken> {
    const { signal, idempotencyKey = newKey(), ...json } = options;
    return this.#calls.json({ method: "POST", path: this.#path("/preview-token"), json, signal, idempotencyKey });
  }

  /** Revokes this token, or all; how many there were. */
  async revokePreviewTokens(token?: string, options: CallOptions = {}): Promise<number> {
    const call = { method: "DELETE", path: this.#path("/preview-token"), json: { token } } as const;
    return (await this.#calls.json<{ revoked: number }>({ ...call, ...options })).revoked;
  }

  /** What the server says of it now. It does not wake the session. */
  async refresh(options: CallOptions = {}): Promise<Session> {
    return this.seen(await this.#calls.json<SessionShape>({ method: "GET", path: this.#path(), ...options }));
  }

  /** It expires so many seconds from now. */
  extend(ttl: number, options: CallOptions = {}): Promise<Session> {
    return this.update({ ttl }, options);
  }

  /** Each field given replaces the old value whole; null puts the default back. */
  async update(fields: UpdateSession, options: CallOptions = {}): Promise<Session> {
    return this.seen(
      await this.#calls.json<SessionShape>({ method: "PATCH", path: this.#path(), json: fields, ...options }),
    );
  }

  /** `idle` suspends its processes; `deep-sleep` ends them and keeps the files. */
  async sleep(depth: "idle" | "deep-sleep" = "idle", options: CallOptions = {}): Promise<Session> {
    const call = { method: "POST", path: this.#path("/sleep"), json: { depth }, repeatable: true } as const;
    return this.seen(await this.#calls.json<SessionShape>({ ...call, ...options }));
  }

  /** From which state, and how long it took. Every call that needs the session wakes it too. */
  async wake(options: CallOptions = {}): Promise<{ wokeFrom: SessionState; wakeTimeMs: number }> {
    const call = { method: "POST", path: this.#path("/wake"), repeatable: true } as const;
    const woken = await this.#calls.json<SessionShape & { wokeFrom: SessionState; wakeTimeMs: number }>({
      ...call,
      ...options,
    });
    const { wokeFrom, wakeTimeMs, ...shape } = woken;
    this.seen(shape);
    return { wokeFrom, wakeTimeMs };
  }

  /** With its processes and files. */
  async delete(options: CallOptions = {}): Promise<void> {
    await this.#calls.gone({ method: "DELETE", path: this.#path(), ...options }, "session_not_found");
  }

  /** `await using session = …` deletes it at the end of the block; one that has expired before is no error. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.delete();
    } catch (failure) {
      if (!(failure instanceof SessionNotFound)) throw failure;
    }
  }

  /** @internal Seconds that a run has which names no timeout, where it is known. */
  runTimeout(): SessionTimeout {
    return undefined;
  }

  /** @internal */
  protected seen(shape: SessionShape): Session {
    return new Session(this.#calls, shape);
  }

  #run(program: { code: string } | { command: string }, options: RunOptions & KeyedOptions): Promise<ExecuteResponse> {
    const { signal, idempotencyKey, ...fields } = options;
    const request = { sessionId: this.id, ...program, ...fields };
    return execute(this.#calls, request, { signal, idempotencyKey }, this.runTimeout());
  }

  #stream(program: { code: string } | { command: string }, options: RunOptions & StreamOptions): RunStream {
    const { signal, detach, ...fields } = options;
    return new RunStream(this.#calls, { sessionId: this.id, ...program, ...fields }, { signal, detach });
  }

  #path(rest = ""): string {
    return `/sessions/${encodeURIComponent(this.id)}${rest}`;
  }
}

/** A session with what the server has last said of it: `refresh()` asks again. */
export class Session extends SessionHandle {
  readonly createdAt!: string;
  readonly expiresAt!: string;
  /** Where port 8080 of the session is seen. */
  readonly previewUrl!: string;
  readonly resourceLimits!: ResourceLimits;
  /** This and what follows: undefined after `create`, until the server was asked. */
  readonly state: SessionState | undefined;
  readonly lastActive: string | undefined;
  readonly filesCount: number | undefined;
  readonly activeProcesses: number | undefined;
  readonly metadata: Record<string, unknown> | undefined;
  readonly preview: PreviewSettings | undefined;
  readonly network: NetworkSettings | undefined;
  readonly onWake: string | null | undefined;
  /** Of its environment; values are never shown. */
  readonly envNames: string[] | undefined;

  /** @internal */
  constructor(calls: Calls, shape: CreatedShape | SessionShape) {
    super(calls, shape.sessionId);
    this.#see(shape);
  }

  /** Where a port of the session is seen. (`previewUrl` itself is that of port 8080.) */
  previewUrlFor(port = 8080): string {
    return port === 8080 ? this.previewUrl : this.previewUrl.replace(/^(\w+:\/\/[^.]+)/, `$1-${port}`);
  }

  /** @internal */
  override runTimeout(): SessionTimeout {
    return this.resourceLimits.timeout;
  }

  /** @internal */
  protected override seen(shape: SessionShape): Session {
    return this.#see(shape);
  }

  #see(shape: CreatedShape | SessionShape): this {
    const { sessionId: _, ...fields } = shape;
    return Object.assign(this, fields);
  }
}
