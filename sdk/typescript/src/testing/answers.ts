/** The fake's responses and errors, in the transport's form. */

import { BuntimeError, ConnectionFailed, RequestTimeout } from "../index.js";
import type { Answer } from "../transport.js";
import { unlessAborted } from "../waiting.js";

/** A failure, as the server reports it. */
interface FakeFailure {
  code: string;
  message?: string | undefined;
  details?: Record<string, unknown> | undefined;
  /** Seconds, sent in the header `Retry-After`. */
  retryAfter?: number | undefined;
  /** By default, the code's own status. */
  status?: number | undefined;
}

/** Thrown by a route. The transport turns it into a response. */
export class Refusal extends Error {
  constructor(readonly failure: FakeFailure) {
    super(failure.message ?? failure.code);
  }
}

export function refuse(code: string, message: string, details: Record<string, unknown> = {}): never {
  throw new Refusal({ code, message, details });
}

/**
 * Returns the error itself, or the one with this code. Throws a TypeError for a code that the server does not have.
 */
export function scripted(error: BuntimeError | string): BuntimeError {
  if (typeof error !== "string") return error;
  if (Object.hasOwn(STATUSES, error)) return new BuntimeError(`Scripted: ${error}.`, { code: error });
  throw new TypeError(`The server has no error with the code ${JSON.stringify(error)}.`);
}

/** Returns the server's response for the error. Throws what is not a response: a broken connection or a timeout. */
export function refused(error: BuntimeError, headers: Record<string, string> = {}): Answer {
  if (error instanceof ConnectionFailed || error instanceof RequestTimeout) throw error;
  const { code, message, details, status, retryAfter } = error;
  const failure = { code, message, details, status: status ?? undefined, retryAfter: retryAfter ?? undefined };
  return failed(failure, headers);
}

const STATUSES: Record<string, number> = {
  invalid_request: 400,
  unauthorized: 401,
  forbidden: 403,
  session_not_found: 404,
  not_found: 404,
  method_not_allowed: 405,
  file_not_found: 404,
  file_conflict: 409,
  process_not_found: 404,
  service_not_found: 404,
  context_not_found: 404,
  image_not_found: 404,
  key_not_found: 404,
  webhook_not_found: 404,
  delivery_not_found: 404,
  snapshot_not_found: 404,
  context_lost: 409,
  terminal_not_found: 404,
  range_not_satisfiable: 416,
  resource_limit_exceeded: 429,
  execution_timeout: 408,
  idempotency_in_progress: 409,
  outcome_unknown: 409,
  idempotency_key_reused: 422,
  name_taken: 409,
  session_busy: 409,
  invalid_state: 409,
  payload_too_large: 413,
  rate_limit_exceeded: 429,
  session_limit_exceeded: 429,
  memory_limit_exceeded: 507,
  disk_full: 507,
  internal_error: 500,
  unavailable: 503,
};

const RETRYABLE = new Set([
  "resource_limit_exceeded",
  "execution_timeout",
  "idempotency_in_progress",
  "session_busy",
  "rate_limit_exceeded",
  "session_limit_exceeded",
  "unavailable",
]);

export function errorObject(failure: Pick<FakeFailure, "code" | "message" | "details">): Record<string, unknown> {
  const { code, message = `Scripted: ${code}.`, details = {} } = failure;
  return { code, retryable: RETRYABLE.has(code), message, details };
}

export function failed(failure: FakeFailure, more: Record<string, string> = {}): Answer {
  const headers: Record<string, string> = { "x-request-id": "fake", ...more };
  if (failure.retryAfter !== undefined) headers["retry-after"] = String(failure.retryAfter);
  return whole(failure.status ?? STATUSES[failure.code] ?? 500, { error: errorObject(failure) }, headers);
}

export function whole(status: number, body: unknown, headers: Record<string, string> = {}): Answer {
  return partly(status, [new TextEncoder().encode(JSON.stringify(body))], headers);
}

/** A body in parts. It breaks off when the signal fires. */
export function partly(
  status: number,
  parts: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  headers: Record<string, string> | Headers = {},
  signal?: AbortSignal,
): Answer {
  const all = () => wanted(parts, signal);
  return {
    status,
    headers: new Headers(headers),
    parts: all,
    async text() {
      const decoder = new TextDecoder();
      let text = "";
      for await (const part of all()) text += decoder.decode(part, { stream: true });
      return text + decoder.decode();
    },
  };
}

async function* wanted(
  parts: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array, void, undefined> {
  const iterator = each(parts);
  try {
    while (true) {
      const next = iterator.next();
      const { value, done } = await (signal === undefined ? next : unlessAborted(next, signal));
      if (done) return;
      yield value;
    }
  } finally {
    iterator.return().catch(() => undefined); // do not wait: a script may still be running
  }
}

async function* each(
  parts: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array, void, undefined> {
  yield* parts;
}

/** Encodes a Server-Sent Event. */
export const EVENTS = { "content-type": "text/event-stream" };

export function event(name: string, data: unknown, id?: string): Uint8Array {
  const head = id === undefined ? `event: ${name}\n` : `event: ${name}\nid: ${id}\n`;
  return new TextEncoder().encode(`${head}data: ${JSON.stringify(data)}\n\n`);
}
