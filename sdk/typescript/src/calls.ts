/** Makes calls: adds the key, gives each its time, makes it again where that is safe, turns refusals into errors. */

import { Deadline } from "./deadline.js";
import { BuntimeError, ConnectionFailed, RateLimitExceeded, errorOf, isRecord, secondsOf } from "./errors.js";
import { eventsOf, type ServerEvent } from "./events.js";
import { readJson } from "./json.js";
import { delayBefore, type RetryRules } from "./retries.js";
import { isBrowser } from "./runtime.js";
import { isAnswer, type Answer, type Ask, type Body, type Socket, type Transport } from "./transport.js";
import { VERSION } from "./version.js";
import { pause, unlessAborted } from "./waiting.js";

export type QueryValue = string | number | boolean | undefined;

/** What any call can be given beside its own arguments. */
export interface CallOptions {
  /** Ends the call when it fires, with its reason. */
  signal?: AbortSignal | undefined;
}

/** For calls that make something: a call that is repeated with the same key makes it once. */
export interface KeyedOptions extends CallOptions {
  /** 1 to 255 visible ASCII characters. One is made up where it is left out. */
  idempotencyKey?: string | undefined;
}

export interface Call extends CallOptions {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  readonly path: string;
  readonly query?: Record<string, QueryValue>;
  /** Sent as JSON; what is undefined is left out. */
  readonly json?: object;
  /** A function makes it anew for each attempt; parts that come as they come are sent once. */
  readonly body?: Body | (() => Body);
  readonly headers?: Record<string, string>;
  readonly idempotencyKey?: string | undefined;
  /** Carried out twice it does no harm. Every method but POST, and what has an idempotency key, unless said here. */
  readonly repeatable?: boolean;
  /** Not where the caller does that itself. */
  readonly isRetried?: boolean;
  /** Seconds that the server may be silent on top of the client's own time-out, since a program runs. */
  readonly waits?: number;
}

export interface CallSettings extends RetryRules {
  readonly apiKey: string;
  readonly baseUrl: string;
  /** Milliseconds. */
  readonly timeout: number;
  readonly onRetry: ((error: BuntimeError, attempt: number, delay: number) => void) | undefined;
}

const LEAST_LOOK = 1000; // ms that one look at a call under way counts as
const HEARTBEAT = 15; // seconds: the server fills the silence of a stream of events this often
const SLOWEST_UPLOAD = 256; // bytes in a millisecond that a body may take, on top of the time-out

export class Calls {
  readonly settings: CallSettings;
  readonly #transport: Transport;

  constructor(settings: CallSettings, transport: Transport) {
    this.settings = settings;
    this.#transport = transport;
  }

  /** The answer's JSON. */
  json<T>(call: Call): Promise<T> {
    return this.#repeated(call, () => this.#once<T>(call));
  }

  /** A deletion. One that is made again, since its answer was lost, may find nothing left: then it is done. */
  async gone<T>(call: Call, absent: string): Promise<T | null> {
    let mayBeDone = false;
    const once = async () => {
      try {
        return await this.#once<T>(call);
      } catch (failure) {
        if (mayBeDone && failure instanceof BuntimeError && failure.code === absent) return null;
        mayBeDone ||= hasBegun(failure);
        throw failure;
      }
    };
    return await this.#repeated(call, once);
  }

  /** Server-Sent Events as they come. Silence is allowed for the time-out after the heartbeat that did not come. */
  events(call: Call): AsyncGenerator<ServerEvent, void, undefined> {
    return eventsOf(this.parts({ ...call, waits: (call.waits ?? 0) + HEARTBEAT }));
  }

  /** The answer's body as it comes; it may take any time, but no part of it longer than the time-out. */
  async *parts(call: Call): AsyncGenerator<Uint8Array, void, undefined> {
    const { answer, deadline } = await this.#repeated(call, () => this.#answered(call));
    let isWhole = false;
    try {
      deadline.restart(this.#time(call));
      for await (const part of answer.parts()) {
        deadline.hold(); // what the caller does with it is not our time
        yield part;
        deadline.restart(this.#time(call));
      }
      isWhole = true;
    } finally {
      if (isWhole) deadline.stop();
      else deadline.end();
    }
  }

  /** What `greeted` makes of a WebSocket, all within the time of one call. The socket is closed where it fails. */
  socket<T>(call: Call, greeted: (socket: Socket) => Promise<T>): Promise<T> {
    return this.#repeated(call, async () => {
      const deadline = this.#deadline(call);
      let socket: Socket | null = null;
      try {
        const opened = await this.#transport.connect(await this.#ask(call, deadline));
        if (isAnswer(opened)) throw await refusalOf(opened);
        socket = opened;
        return await unlessAborted(greeted(opened), deadline.signal);
      } catch (failure) {
        socket?.close();
        throw failure;
      } finally {
        deadline.stop();
      }
    });
  }

  async #once<T>(call: Call): Promise<T> {
    const { answer, deadline } = await this.#answered(call);
    try {
      return parsed<T>(await answer.text(), answer);
    } finally {
      deadline.stop();
    }
  }

  async #repeated<T>(call: Call, once: () => Promise<T>): Promise<T> {
    const repeatable = call.repeatable ?? (call.method !== "POST" || call.idempotencyKey !== undefined);
    let patience = this.#time(call); // an earlier attempt that is still under way has as long as its answer would have
    for (let attempt = 1; ; attempt++) {
      try {
        return await once();
      } catch (failure) {
        const isUnderWay = patience > 0 && (failure as { code?: unknown }).code === "idempotency_in_progress";
        if (isUnderWay) attempt = Math.max(attempt - 1, 1);
        const delay = delayBefore(failure, attempt, repeatable, this.settings, Math.random());
        if (delay === null || call.isRetried === false || isParts(call.body) || call.signal?.aborted) throw failure;
        this.settings.onRetry?.(failure as BuntimeError, attempt, delay);
        if (isUnderWay) patience -= Math.max(delay, LEAST_LOOK);
        await pause(delay, call.signal);
      }
    }
  }

  /** An answer that is no refusal. The deadline still runs. */
  async #answered(call: Call): Promise<{ answer: Answer; deadline: Deadline }> {
    const deadline = this.#deadline(call);
    try {
      const answer = await this.#transport.send(await this.#ask(call, deadline));
      if (answer.status >= 300) throw await refusalOf(answer);
      return { answer, deadline };
    } catch (failure) {
      deadline.stop();
      throw failure;
    }
  }

  /** Each part gives the rest of the call its time again. Where the caller's parts fail, the call fails with just that. */
  async *#watched(parts: AsyncIterable<Uint8Array>, call: Call, deadline: Deadline): AsyncGenerator<Uint8Array> {
    try {
      for await (const part of parts) {
        deadline.restart(this.#time(call));
        yield part;
      }
    } catch (failure) {
      deadline.end(failure);
      throw failure;
    }
  }

  /** Browsers do not send parts as they come: some send what a stream is called, and tell of no error. */
  async #gathered(parts: AsyncIterable<Uint8Array>, call: Call, deadline: Deadline): Promise<Blob> {
    const gathered = await unlessAborted(blobOf(parts, deadline.signal), deadline.signal);
    deadline.restart(this.#time({ ...call, body: gathered }));
    return gathered;
  }

  #deadline(call: Call): Deadline {
    return new Deadline(this.#time(call), call.signal);
  }

  #time(call: Call): number {
    return this.settings.timeout + (call.waits ?? 0) * 1000 + sizeOf(call.body) / SLOWEST_UPLOAD;
  }

  async #ask(call: Call, deadline: Deadline): Promise<Ask> {
    const headers: Record<string, string> = { Authorization: `Bearer ${this.settings.apiKey}`, ...call.headers };
    if (!isBrowser()) headers["User-Agent"] = `buntime-sdk-typescript/${VERSION}`;
    if (call.idempotencyKey !== undefined) headers["Idempotency-Key"] = call.idempotencyKey;
    let body = typeof call.body === "function" ? call.body() : (call.body ?? null);
    if (call.json !== undefined) {
      headers["Content-Type"] = "application/json";
      body = JSON.stringify(call.json);
      deadline.restart(this.#time(call) + body.length / SLOWEST_UPLOAD);
    } else if (isParts(body)) {
      body = this.#watched(body, call, deadline);
      if (isBrowser()) body = await this.#gathered(body, call, deadline);
    }
    const url = this.settings.baseUrl + call.path + queryOf(call.query);
    return { method: call.method, url, headers, body, signal: deadline.signal };
  }
}

/** Whether a call that failed so may have been carried out. */
function hasBegun(failure: unknown): boolean {
  if (failure instanceof ConnectionFailed) return failure.begun;
  return !(failure instanceof RateLimitExceeded);
}

/** A key of its own for one call. */
export function newKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function refusalOf(answer: Answer): Promise<BuntimeError> {
  const text = await answer.text();
  const shown = readJson(text);
  const error = isRecord(shown) ? shown.error : undefined;
  return errorOf(error, answer.status, answer.header("x-request-id"), secondsOf(answer.header("retry-after")));
}

function parsed<T>(text: string, answer: Answer): T {
  const value = readJson(text);
  if (isRecord(value)) return value as T;
  const requestId = answer.header("x-request-id");
  throw errorOf(
    { code: "unexpected_answer", message: "The answer is not JSON: is this a buntime server?" },
    answer.status,
    requestId,
  );
}

function queryOf(query: Record<string, QueryValue> = {}): string {
  const pairs = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value !== undefined) pairs.set(name, String(value));
  return pairs.size > 0 ? `?${pairs}` : "";
}

function sizeOf(body: Call["body"]): number {
  if (body instanceof Uint8Array) return body.byteLength;
  return typeof Blob !== "undefined" && body instanceof Blob ? body.size : 0;
}

async function blobOf(parts: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<Blob> {
  const gathered: Uint8Array<ArrayBuffer>[] = [];
  for await (const part of parts) {
    if (signal.aborted) break;
    gathered.push(part.slice());
  }
  return new Blob(gathered);
}

function isParts(body: unknown): body is AsyncIterable<Uint8Array> {
  return typeof body === "object" && body !== null && Symbol.asyncIterator in body;
}

/** A stream that ended without its last event. */
export function brokenStream(): ConnectionFailed {
  return new ConnectionFailed("The stream ended before its last event: the connection broke.", { begun: true });
}
