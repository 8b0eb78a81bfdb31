/** The client: where everything begins. */

import { Calls, type KeyedOptions } from "./calls.js";
import { ClientFiles } from "./client_files.js";
import { Unauthorized, type BuntimeError } from "./errors.js";
import { FetchTransport, type Fetch } from "./fetching.js";
import { NodeTransport } from "./node_http.js";
import { RunStream, execute, type StreamOptions } from "./runs.js";
import { builtin, environment, isNode } from "./runtime.js";
import { Sessions } from "./sessions.js";
import type { ExecuteRequest, ExecuteResponse } from "./shapes.js";
import type { Transport } from "./transport.js";
import { upgrade } from "./upgrade.js";

export interface BuntimeOptions {
  /** `BUNTIME_API_KEY` of the environment by default. */
  apiKey?: string | undefined;
  /** `BUNTIME_URL` of the environment by default, else `http://localhost:8000`. */
  baseUrl?: string | undefined;
  /**
   * Milliseconds for one attempt of a call, and between two parts of a body; 60,000 by default. A call that waits for a
   * program has the program's own time on top, and silence between events the 15 seconds of the server's heartbeats.
   */
  timeout?: number | undefined;
  /** Times that a call is made again, where that is safe; 2 by default. */
  maxRetries?: number | undefined;
  /** Milliseconds before the first of them; each further one doubles them. 500 by default. A server's `Retry-After` comes first. */
  retryDelay?: number | undefined;
  /** Called before a call is made again. `attempt` counts from 1; `delay` in milliseconds. */
  onRetry?: ((error: BuntimeError, attempt: number, delay: number) => void) | undefined;
  /** In place of the runtime's own way to send requests, for example to record them. */
  fetch?: Fetch | undefined;
  /** In place of the network: see `@buntime/sdk/testing`. */
  transport?: Transport | undefined;
}

/** The client of one server with one key. */
export class Buntime {
  readonly sessions: Sessions;
  /** By the session's id. `session.files` has more. */
  readonly files: ClientFiles;
  readonly #calls: Calls;

  /** Throws `Unauthorized` where there is no key. */
  constructor(options: BuntimeOptions = {}) {
    const apiKey = options.apiKey ?? environment("BUNTIME_API_KEY");
    if (!apiKey)
      throw new Unauthorized("There is no API key: give apiKey, or set BUNTIME_API_KEY.", { code: "unauthorized" });
    const settings = {
      apiKey,
      baseUrl: (options.baseUrl ?? environment("BUNTIME_URL") ?? "http://localhost:8000").replace(/\/+$/, ""),
      timeout: options.timeout ?? 60_000,
      maxRetries: options.maxRetries ?? 2,
      retryDelay: options.retryDelay ?? 500,
      onRetry: options.onRetry,
    };
    this.#calls = new Calls(settings, options.transport ?? network(options.fetch));
    this.sessions = new Sessions(this.#calls);
    this.files = new ClientFiles(this.#calls);
  }

  /** Runs code or a command to its end. A program that fails is a result with its `exitCode`. */
  execute(request: ExecuteRequest, options: KeyedOptions = {}): Promise<ExecuteResponse> {
    return execute(this.#calls, request, options);
  }

  /** Runs code or a command and tells what it prints as it happens. */
  stream(request: ExecuteRequest, options: StreamOptions = {}): RunStream {
    return new RunStream(this.#calls, request, options);
  }
}

function network(fetch: Fetch | undefined): Transport {
  if (fetch === undefined && isNode() && builtin("node:http") !== undefined) return new NodeTransport(upgrade);
  return new FetchTransport(fetch ?? ((url, init) => globalThis.fetch(url, init)), upgrade);
}
