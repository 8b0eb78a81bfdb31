/** One session and everything you do in it. */

import { newKey, type Call, type CallOptions, type Calls, type KeyedOptions } from "./calls.js";
import { Contexts } from "./contexts.js";
import { errorOf, SessionNotFound, type BuntimeError } from "./errors.js";
import { Files } from "./files.js";
import type { CreateSnapshot, ForkSession, Snapshot } from "./kept_shapes.js";
import { asForked, type KnownShape } from "./made.js";
import type { AskMetrics, SessionMetrics } from "./metrics_shapes.js";
import {
  DEFAULT_PORT,
  TOKEN_SECONDS,
  askedOf,
  fetchPreview,
  limitOf,
  urlOfPort,
  type FetchOptions,
  type PreviewSeen,
} from "./previews.js";
import { Processes } from "./processes.js";
import type { DeclaredService } from "./service_shapes.js";
import { Services } from "./services.js";
import type { ExecutionResult } from "./results.js";
import { RunStream, execute, type ExecuteOptions, type SessionTimeout, type StreamOptions } from "./runs.js";
import type {
  CreatedShape,
  NetworkSettings,
  PreviewSettings,
  PreviewToken,
  ResourceLimits,
  SleepPolicy,
  Recovered,
  RunOptions,
  SessionShape,
  SessionState,
  UpdateSession,
  Woken,
} from "./shapes.js";
import { requireId, requireString, timeOf } from "./arguments.js";
import { openTerminal, type Terminal, type TerminalOptions } from "./terminal.js";

const FORK_SECONDS = 60; // the server may take so long to make many sessions

type Forked = { session: CreatedShape } | { error: unknown };

/** A session by its id, with the calls that need no properties of it. */
export class SessionHandle implements AsyncDisposable {
  readonly id: string;
  readonly #calls: Calls;
  #preview: PreviewSeen | undefined;
  #existed: boolean;

  /** @internal */
  constructor(calls: Calls, id: string, existed = false) {
    this.id = id;
    this.#calls = calls;
    this.#existed = existed;
  }

  /** Its files. */
  get files(): Files {
    return new Files(this.#calls, this.id);
  }

  /** Programs that keep running after the call that started them. */
  get processes(): Processes {
    return new Processes(this.#calls, this.id);
  }

  /** Shows, starts and stops the programs that it declares. */
  get services(): Services {
    return new Services(this.#calls, this.#path());
  }

  /** Code that keeps its variables. */
  get contexts(): Contexts {
    return new Contexts(this.#calls, this.id, this.runTimeout());
  }

  /**
   * Executes TypeScript or JavaScript and returns the result. A failing program is a result too: see its `ok`,
   * `exitCode` and `check()`. Throws `MemoryLimitExceeded` and `DiskFull`, with the output so far in `details`, and
   * `FileConflict` or `PayloadTooLarge` for `files`.
   *
   * Aborting the `signal` ends the run, and so does a lost connection. With an `idempotencyKey` the run continues, and a
   * call with the same key returns its result.
   */
  async execute(code: string, options: RunOptions & ExecuteOptions = {}): Promise<ExecutionResult> {
    return await this.#run({ code: requireString(code, "code") }, options);
  }

  /** Executes a command with `bash -c` and returns the result. Throws what `execute` throws. */
  async executeCommand(command: string, options: RunOptions & ExecuteOptions = {}): Promise<ExecutionResult> {
    return await this.#run({ command: requireString(command, "command") }, options);
  }

  /** Executes code and streams its output. */
  stream(code: string, options: RunOptions & StreamOptions = {}): RunStream {
    return this.#stream({ code: requireString(code, "code") }, options);
  }

  /** Executes a command with `bash -c` and streams its output. */
  streamCommand(command: string, options: RunOptions & StreamOptions = {}): RunStream {
    return this.#stream({ command: requireString(command, "command") }, options);
  }

  /**
   * Opens a shell. `await using` disconnects and leaves the shell running. Not in browsers. Throws `TerminalNotFound`,
   * `FileNotFound` for `workingDir`, `ResourceLimitExceeded`.
   */
  terminal(options: TerminalOptions = {}): Promise<Terminal> {
    return openTerminal(this.#calls, this.id, options);
  }

  /**
   * Sends a request to a server in the session, through its preview, and returns the server's response. An error status
   * of that server is a response too. Read its body, or cancel it.
   *
   * This works where `*.localhost` does not resolve: it connects to the API's address. It makes a token where the port
   * is private. While the session wakes, it retries as the server advises; where nothing listens on the port, as often
   * as `maxRetries` says. `timeout` bounds all of that. A server that does not answer in time is not asked again.
   * Redirects are not followed, and cookies are not kept. `path`: path and query, from the slash on.
   *
   * Throws `Unavailable` when nothing listens or the session does not wake in time, `InvalidRequest`,
   * `SessionNotFound`, `ConnectionFailed`, `RequestTimeout`.
   */
  async fetch(path = "/", options: FetchOptions = {}): Promise<Response> {
    const asked = askedOf(path, options);
    const deadline = limitOf(this.#calls, this.id, asked);
    const { signal } = deadline;
    try {
      const newToken = async () => (await this.previewToken({ ttl: TOKEN_SECONDS, signal })).token;
      const preview = { sessionId: this.id, newToken, ...(await this.previewSeen(signal)) };
      return await fetchPreview(this.#calls, preview, asked, deadline);
    } catch (failure) {
      deadline.stop();
      throw failure;
    }
  }

  /**
   * Creates a token for the preview of one port, or of all ports. `ttl`: seconds, from 60; 3600 by default. `fetch`
   * makes its own. Throws `InvalidState` when the session has the most valid tokens that it may have.
   */
  previewToken(
    options: { port?: number | undefined; ttl?: number | undefined } & KeyedOptions = {},
  ): Promise<PreviewToken> {
    const { signal, idempotencyKey = newKey(), ...json } = options;
    return this.#calls.json({ method: "POST", path: this.#path("/preview-token"), json, signal, idempotencyKey });
  }

  /** Revokes this token, or all tokens. Returns how many were revoked. */
  async revokePreviewTokens(token?: string, options: CallOptions = {}): Promise<number> {
    const call = { method: "DELETE", path: this.#path("/preview-token"), json: { token } } as const;
    return (await this.#calls.json<{ revoked: number }>({ ...call, ...options })).revoked;
  }

  /** Asks the server for the session's current state. This does not wake the session. */
  async refresh(options: CallOptions = {}): Promise<Session> {
    return this.seen(await this.#calls.json<SessionShape>({ method: "GET", path: this.#path(), ...options }));
  }

  /**
   * Makes the session expire later, or sooner, or `"never"`, where the plan allows it. `ttl`: seconds from now, 300 to
   * the plan's longest, which is 86400 (24 hours) on the free plan.
   */
  extend(ttl: number | "never", options: CallOptions = {}): Promise<Session> {
    return this.update({ ttl }, options);
  }

  /** Replaces each setting given as a whole; null restores its default. This does not wake the session. */
  async update(fields: UpdateSession, options: CallOptions = {}): Promise<Session> {
    return this.seen(
      await this.#calls.json<SessionShape>({ method: "PATCH", path: this.#path(), json: fields, ...options }),
    );
  }

  /**
   * Puts the session to sleep: suspends its processes (`idle`, the default), or ends them and keeps the files
   * (`deep-sleep`). Throws `SessionBusy` while another call uses the session.
   */
  async sleep(depth: "idle" | "deep-sleep" = "idle", options: CallOptions = {}): Promise<Session> {
    const call = { method: "POST", path: this.#path("/sleep"), json: { depth }, repeatable: true } as const;
    return this.seen(await this.#calls.json<SessionShape>({ ...call, ...options }));
  }

  /**
   * Wakes the session. Returns the state it woke from and the milliseconds it took. Every call that needs the session
   * wakes it too. Throws `Unavailable` when that takes too long.
   */
  async wake(options: CallOptions = {}): Promise<Woken> {
    const call = { method: "POST", path: this.#path("/wake"), repeatable: true } as const;
    const woken = await this.#calls.json<SessionShape & Woken>({ ...call, ...options });
    const { wokeFrom, wakeTimeMs, ...shape } = woken;
    this.seen(shape);
    return { wokeFrom, wakeTimeMs };
  }

  /**
   * Returns what the session did over time: CPU, memory, disk, network, processes. This does not wake it. Throws
   * `InvalidRequest`.
   */
  async metrics(asked: AskMetrics = {}, options: CallOptions = {}): Promise<SessionMetrics> {
    const query = { from: timeOf(asked.from, "from"), to: timeOf(asked.to, "to"), step: asked.step };
    return await this.#calls.json({ method: "GET", path: this.#path("/metrics"), query, ...options });
  }

  /**
   * Takes a snapshot of the files as they are now, and does not wake the session. It stays when the session is gone. An
   * idempotency key is sent by default, so a retry creates nothing twice. Throws `ResourceLimitExceeded` when the plan
   * has no room for another snapshot.
   */
  snapshot(fields: CreateSnapshot = {}, options: KeyedOptions = {}): Promise<Snapshot> {
    return this.#calls.json(this.#keyed("/snapshots", fields, options));
  }

  /**
   * Creates a session with the files of this one as they are now, and does not wake this one. An idempotency key is sent
   * by default, so a retry creates nothing twice. Throws `Forbidden` for a limit beyond the plan, `SessionLimitExceeded`,
   * and `Unavailable` when the server has no capacity.
   */
  async fork(fields: ForkSession = {}, options: KeyedOptions = {}): Promise<Session> {
    const [made] = await this.#forks(fields, fields, options);
    if (made instanceof Session) return made;
    throw made;
  }

  /**
   * Creates several sessions with the files of this one as they are now. Returns one entry for each: the session, or the
   * error that prevented it. `count`: 1 to 100, within the plan. Throws what `fork` throws, if there is no session at
   * all, and `Forbidden` for a `count` beyond the plan.
   */
  forkMany(count: number, fields: ForkSession = {}, options: KeyedOptions = {}): Promise<(Session | BuntimeError)[]> {
    return this.#forks({ count, ...fields }, fields, options);
  }

  /**
   * Replaces the files by those of a snapshot. Processes end. The id, URLs, settings and end stay; the image becomes the
   * snapshot's. A snapshot named `before-restore` is taken first and kept for 24 hours. An idempotency key is sent by
   * default, so a retry restores nothing twice. Throws `SnapshotNotFound`, `SessionBusy` while another call uses the
   * session, and `DiskFull` when the snapshot needs more than the session's disk limit.
   */
  async restore(snapshotId: string, options: KeyedOptions = {}): Promise<Session> {
    const json = { snapshotId: requireId(snapshotId, "snapshotId") };
    return this.seen(await this.#calls.json<SessionShape>(this.#keyed("/restore", json, options)));
  }

  /**
   * Continues from the newest checkpoint or deep sleep in the archive, after the server has lost the files. Calls then
   * throw `InvalidState` with the reason `volume_lost` in `details`. What changed since is given up for good: the result
   * says how old the state is. The session is in deep sleep then, and is not woken; `refresh` shows that. An idempotency
   * key is sent by default, so a retry gets the same result. Throws `InvalidState`, with the reason `not_lost` when no
   * files are lost, and `volume_lost` when the archive has none.
   */
  async recover(options: KeyedOptions = {}): Promise<Recovered> {
    const { signal, idempotencyKey = newKey() } = options;
    const call = { method: "POST", path: this.#path("/recover"), signal, idempotencyKey } as const;
    const { recoveredFrom, ageSeconds } = await this.#calls.json<Recovered>(call);
    this.#existed = true;
    return { recoveredFrom, ageSeconds };
  }

  /**
   * Deletes the session with its processes and files. Deleting it again, or after it expired, does nothing. Throws
   * `SessionNotFound` only if this object has never seen the session: it comes from `sessions.open`, and no session has
   * its id.
   */
  async delete(options: CallOptions = {}): Promise<void> {
    const call = { method: "DELETE", path: this.#path(), ...options } as const;
    await this.#calls.gone(call, "session_not_found", this.#existed);
    this.#existed = true;
  }

  /** `await using session = …` deletes the session at the end of the block. An expired session is not an error. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.delete();
    } catch (failure) {
      if (!(failure instanceof SessionNotFound)) throw failure;
    }
  }

  /** @internal Seconds that a run without its own timeout may take, if known. */
  runTimeout(): SessionTimeout {
    return undefined;
  }

  /** @internal Its preview's URL and settings, as far as known. Asks the server for the URL where it is unknown. */
  protected async previewSeen(signal: AbortSignal | undefined): Promise<PreviewSeen> {
    if (this.#preview === undefined) {
      const { previewUrl, preview } = await this.refresh({ signal });
      this.#preview = { url: previewUrl, settings: preview };
    }
    return this.#preview;
  }

  /** @internal */
  protected seen(shape: SessionShape): Session {
    this.#existed = true;
    return new Session(this.#calls, shape);
  }

  /** @internal What is known of its properties. */
  protected known(): Partial<SessionShape> {
    return {};
  }

  async #forks(json: object, fields: ForkSession, options: KeyedOptions): Promise<(Session | BuntimeError)[]> {
    const call = { ...this.#keyed("/fork", json, options), waits: FORK_SECONDS };
    const { sessions } = await this.#calls.json<{ sessions: Forked[] }>(call);
    return sessions.map((one) =>
      "session" in one
        ? new Session(this.#calls, asForked(one.session, fields, this.known()))
        : errorOf(one.error, null),
    );
  }

  #keyed(rest: string, json: object, { signal, idempotencyKey = newKey() }: KeyedOptions): Call {
    return { method: "POST", path: this.#path(rest), json, signal, idempotencyKey };
  }

  #run(
    program: { code: string } | { command: string },
    options: RunOptions & ExecuteOptions,
  ): Promise<ExecutionResult> {
    const { signal, idempotencyKey, onStdout, onStderr, ...fields } = options;
    const request = { sessionId: this.id, ...program, ...fields };
    return execute(this.#calls, request, { signal, idempotencyKey, onStdout, onStderr }, this.runTimeout());
  }

  #stream(program: { code: string } | { command: string }, options: RunOptions & StreamOptions): RunStream {
    const { signal, detach, ...fields } = options;
    return new RunStream(this.#calls, { sessionId: this.id, ...program, ...fields }, { signal, detach });
  }

  #path(rest = ""): string {
    return pathOf(this.id) + rest;
  }
}

/** @internal The path of a session by its id, or `name:` and its name. */
export function pathOf(id: string): string {
  return `/sessions/${encodeURIComponent(id).replace("%3A", ":")}`;
}

/** A session, as the server last reported it. `refresh()` asks again. */
export class Session extends SessionHandle {
  /** ISO 8601 in UTC, as all times are. */
  readonly createdAt!: string;
  /** Null if its `ttl` is `"never"`. */
  readonly expiresAt!: string | null;
  /** The URL at which port 8080 is visible in a browser. */
  readonly previewUrl!: string;
  readonly resourceLimits!: ResourceLimits;
  /** False if the call that returned this object created the session. */
  readonly existed: boolean = true;
  /** Its name, which is unique in the account. Wherever an id is taken, `name:` and the name is taken too. */
  readonly name!: string | null;
  /**
   * After `create` and `fork`, this and the following properties are what was asked for or inherited, until you call
   * `refresh()`. What is not known is undefined: `sleepPolicy` if it was not asked for whole, `image` and `filesCount`
   * of a session from a snapshot, `filesCount` of one on another image or from a fork, and what a fork inherited from a
   * handle of `sessions.open`.
   */
  readonly state!: SessionState;
  readonly lastActive!: string;
  /** Files under `/workspace`, up to about 100,000. */
  readonly filesCount!: number;
  /**
   * All its processes, those of runs, contexts and terminals too. While it sleeps, the count of its last activity: in
   * deep sleep they have ended.
   */
  readonly activeProcesses!: number;
  readonly metadata!: Record<string, unknown>;
  readonly preview!: PreviewSettings;
  readonly network!: NetworkSettings;
  readonly onWake!: string | null;
  readonly sleepPolicy!: SleepPolicy;
  /** The services that it declares. `services.list()` shows how they are. */
  readonly declaredServices!: DeclaredService[];
  /**
   * When the newest state of its files was taken that the archive has: at a checkpoint or a deep sleep. Null if there
   * is none.
   */
  readonly checkpointedAt!: string | null;
  /** The names of its environment variables. The server never returns their values. */
  readonly envNames!: string[];
  /** The name of the image that it was created on. */
  readonly image!: string;
  /** The snapshot that it was created from. It stays after a restore, and when the snapshot is gone. */
  readonly snapshotId!: string | null;

  /** @internal */
  constructor(calls: Calls, shape: KnownShape) {
    super(calls, shape.sessionId, true);
    this.#see(shape);
  }

  /**
   * Returns the URL at which a port of the session is visible in a browser, without a request. Programs use `fetch`.
   * `port`: 1024 to 65535, 8080 by default. Throws `InvalidRequest` for other ports, which have no preview.
   */
  previewUrlFor(port = DEFAULT_PORT): string {
    return urlOfPort(this.previewUrl, port);
  }

  /** @internal */
  override runTimeout(): SessionTimeout {
    return this.resourceLimits.timeout;
  }

  /** @internal */
  protected override async previewSeen(signal: AbortSignal | undefined): Promise<PreviewSeen> {
    if (this.preview === undefined) await this.refresh({ signal }); // of a fork
    return { url: this.previewUrl, settings: this.preview };
  }

  /** @internal */
  protected override known(): Partial<SessionShape> {
    const { preview, network, onWake, sleepPolicy, declaredServices: services, envNames, image } = this;
    return { preview, network, onWake, sleepPolicy, services, envNames, image };
  }

  /** @internal */
  protected override seen(shape: SessionShape): Session {
    return this.#see(shape);
  }

  #see(shape: KnownShape): this {
    const { sessionId: _, services, ...fields } = shape;
    return Object.assign(this, fields, services === undefined ? {} : { declaredServices: services });
  }
}
