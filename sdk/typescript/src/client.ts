/** The client: the server's address and the API key. */

import { checkFunction, checkOptions, checkTime, checkTimeout, checkWhole } from "./arguments.js";
import type { Account } from "./account_shapes.js";
import { Calls, type CallOptions } from "./calls.js";
import { ClientFiles } from "./client_files.js";
import { Events } from "./account_events.js";
import { checkedKey, checkedUrl } from "./address.js";
import type { BuntimeError } from "./errors.js";
import { FetchTransport, type Fetch } from "./fetching.js";
import { Hosts } from "./hosts.js";
import { Images } from "./images.js";
import { Keys } from "./keys.js";
import { NodeTransport } from "./node_http.js";
import type { ExecutionResult } from "./results.js";
import { RunStream, execute, type ExecuteOptions, type StreamOptions } from "./runs.js";
import { builtin, isNode } from "./runtime.js";
import { Sessions } from "./sessions.js";
import { Snapshots } from "./snapshots.js";
import type { ExecuteRequest, RateLimit } from "./shapes.js";
import type { Transport } from "./transport.js";
import { Usage } from "./usage.js";
import { upgrade } from "./upgrade.js";
import { Webhooks } from "./webhooks.js";

export interface BuntimeOptions {
  /** By default the environment variable `BUNTIME_API_KEY`. */
  apiKey?: string | undefined;
  /** By default the environment variable `BUNTIME_URL`, or else `http://localhost:8000`. */
  baseUrl?: string | undefined;
  /**
   * Milliseconds for one attempt of a call, and between two parts of a body; 60,000 by default. A call that runs a
   * program may also take the program's own timeout. A stream of events may also be silent for the 15 seconds between
   * two heartbeats.
   */
  timeout?: number | undefined;
  /** How often a failed call is retried where that is safe; 2 by default. */
  maxRetries?: number | undefined;
  /**
   * Milliseconds before the first retry; each further retry doubles them, up to 30,000. 500 by default. The server's
   * `Retry-After` counts if it is longer.
   */
  retryDelay?: number | undefined;
  /** Called before each retry. `attempt` counts from 1; `delay` is in milliseconds. */
  onRetry?: ((error: BuntimeError, attempt: number, delay: number) => void) | undefined;
  /** Replaces the runtime's own way to send requests, for example to record them. */
  fetch?: Fetch | undefined;
  /** Replaces the network: see `@buntime/sdk/testing`. */
  transport?: Transport | undefined;
}

const OPTIONS: Record<keyof BuntimeOptions, true> = {
  apiKey: true,
  baseUrl: true,
  timeout: true,
  maxRetries: true,
  retryDelay: true,
  onRetry: true,
  fetch: true,
  transport: true,
};

/**
 * A client of a buntime server. Every call may throw `Unauthorized`, `Forbidden`, `InvalidRequest`,
 * `RateLimitExceeded`, `Unavailable`, `InternalError`, `ConnectionFailed` and `RequestTimeout`, and every call of a
 * session `SessionNotFound`. Calls name what else they throw.
 */
export class Buntime {
  /** Creates, lists and deletes sessions. */
  readonly sessions: Sessions;
  /** The images that sessions can stand on. */
  readonly images: Images;
  /** Lists and deletes snapshots of sessions. */
  readonly snapshots: Snapshots;
  /** The API keys of the account. */
  readonly keys: Keys;
  /** What the account used. */
  readonly usage: Usage;
  /** What happened in the account. */
  readonly events: Events;
  /** Where the account's events are sent. */
  readonly webhooks: Webhooks;
  /** The hosts of the installation, for its operator. */
  readonly hosts: Hosts;
  /** Files by session id. `session.files` can do more. */
  readonly files: ClientFiles;
  readonly #calls: Calls;

  /**
   * Makes no connection yet. Throws `Unauthorized` when the key is missing, empty or malformed, and `InvalidRequest`
   * when the URL is, a number is out of range, or an option does not exist. An empty string never stands for the
   * environment's value.
   */
  constructor(options: BuntimeOptions = {}) {
    checkOptions(options, Object.keys(OPTIONS), "Buntime");
    checkTimeout(options.timeout);
    checkWhole(options.maxRetries, "maxRetries");
    checkTime(options.retryDelay, "retryDelay", "milliseconds");
    checkFunction(options.onRetry, "onRetry");
    checkFunction(options.fetch, "fetch");
    const settings = {
      apiKey: checkedKey(options.apiKey),
      baseUrl: checkedUrl(options.baseUrl),
      timeout: options.timeout ?? 60_000,
      maxRetries: options.maxRetries ?? 2,
      retryDelay: options.retryDelay ?? 500,
      onRetry: options.onRetry,
    };
    this.#calls = new Calls(settings, options.transport ?? network(options.fetch));
    this.sessions = new Sessions(this.#calls);
    this.images = new Images(this.#calls);
    this.snapshots = new Snapshots(this.#calls);
    this.keys = new Keys(this.#calls);
    this.usage = new Usage(this.#calls);
    this.events = new Events(this.#calls);
    this.webhooks = new Webhooks(this.#calls);
    this.hosts = new Hosts(this.#calls);
    this.files = new ClientFiles(this.#calls);
  }

  /** The server's address. */
  get baseUrl(): string {
    return this.#calls.settings.baseUrl;
  }

  /** The key's rate limit, as the last response reported it. */
  get rateLimit(): RateLimit | null {
    return this.#calls.rateLimit;
  }

  /** Returns the account: its plan, the plan's limits, what is in use, and the scopes of this client's key. */
  async account(options: CallOptions = {}): Promise<Account> {
    return await this.#calls.json<Account>({ method: "GET", path: "/account", ...options });
  }

  /**
   * Executes code or a command in the session `sessionId` and returns the result. A failing program is a result too: see
   * its `ok`. Throws `MemoryLimitExceeded`, `DiskFull`, `ContextLost`.
   */
  execute(request: ExecuteRequest, options: ExecuteOptions = {}): Promise<ExecutionResult> {
    return execute(this.#calls, request, options);
  }

  /** Executes code or a command in the session `sessionId` and streams its output. */
  stream(request: ExecuteRequest, options: StreamOptions = {}): RunStream {
    return new RunStream(this.#calls, request, options);
  }
}

function network(fetch: Fetch | undefined): Transport {
  if (fetch === undefined && isNode() && builtin("node:http") !== undefined) return new NodeTransport(upgrade);
  return new FetchTransport(fetch ?? ((url, init) => globalThis.fetch(url, init)), upgrade);
}
