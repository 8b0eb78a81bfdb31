/** All errors: one class for each server code, and two for failures on the way to the server. */

import type { ExecuteResponse } from "./shapes.js";

export interface ErrorFields {
  code: string;
  /** HTTP status; null without a response. */
  status?: number | null | undefined;
  details?: Record<string, unknown> | undefined;
  /** Whether the same call may succeed later. */
  retryable?: boolean | undefined;
  /** Seconds to wait, if the server says so. */
  retryAfter?: number | null | undefined;
  requestId?: string | null | undefined;
  cause?: unknown;
}

/** Base of all errors of this package. A code that this version does not know is a plain `BuntimeError`. */
export class BuntimeError extends Error {
  /** A stable identifier such as `session_not_found`. */
  readonly code: string;
  /** HTTP status; null without a response. */
  readonly status: number | null;
  /** The server's further fields, such as `field`, `limit`, `plan` or `path`. */
  readonly details: Record<string, unknown>;
  /** Whether the same call may succeed later. */
  readonly retryable: boolean;
  /** Seconds to wait, if the server says so. */
  readonly retryAfter: number | null;
  /** The response's `X-Request-Id`, which is also in the server's log. */
  readonly requestId: string | null;

  constructor(message: string, fields: ErrorFields) {
    super(message, fields.cause === undefined ? undefined : { cause: fields.cause });
    this.name = new.target === BuntimeError ? "BuntimeError" : nameOf(fields.code);
    this.code = fields.code;
    this.status = fields.status ?? null;
    this.details = fields.details ?? {};
    this.retryable = fields.retryable ?? false;
    this.retryAfter = fields.retryAfter ?? null;
    this.requestId = fields.requestId ?? null;
  }
}

/** `session_not_found` → `SessionNotFound`. Not taken from the class itself, since a bundler may rename it. */
function nameOf(code: string): string {
  return code.replace(/(?:^|_)(\w)/g, (_, letter: string) => letter.toUpperCase());
}

/** 400 `invalid_request`: a parameter is invalid; `details.field` names the first one. */
export class InvalidRequest extends BuntimeError {}

/** 401 `unauthorized`: the key is missing, malformed, unknown or revoked. */
export class Unauthorized extends BuntimeError {}

/** 403 `forbidden`: the plan does not allow it, or the account is suspended. */
export class Forbidden extends BuntimeError {}

/** 404 `session_not_found`: the session does not exist, has expired, was deleted, or belongs to another account. */
export class SessionNotFound extends BuntimeError {}

/** 409 `name_taken`: another session of the account has the name; `details.sessionId` is its id. */
export class NameTaken extends BuntimeError {}

/** 404 `not_found`: the server has no such path. */
export class NotFound extends BuntimeError {}

/** 405 `method_not_allowed`: the path does not support this method. */
export class MethodNotAllowed extends BuntimeError {}

/** 404 `file_not_found`: nothing is at `details.path`. */
export class FileNotFound extends BuntimeError {}

/** 409 `file_conflict`: the call needs something else at the path; `details.reason` is the errno name. */
export class FileConflict extends BuntimeError {}

/** 404 `process_not_found`: the session has no process with this id. */
export class ProcessNotFound extends BuntimeError {}

/** 404 `service_not_found`: the session declares no service with this name. */
export class ServiceNotFound extends BuntimeError {}

/** 404 `context_not_found`: the session has no context with this id. */
export class ContextNotFound extends BuntimeError {}

/** 404 `key_not_found`: the key does not exist, is revoked or expired, or belongs to another account. */
export class KeyNotFound extends BuntimeError {}

/** 404 `webhook_not_found`: the webhook does not exist, or belongs to another account. */
export class WebhookNotFound extends BuntimeError {}

/** 404 `delivery_not_found`: the webhook has no delivery with this id. Deliveries go with their events, after 30 days. */
export class DeliveryNotFound extends BuntimeError {}

/** 404 `image_not_found`: the account can use no image with this name. */
export class ImageNotFound extends BuntimeError {}

/** 404 `snapshot_not_found`: the snapshot does not exist, has expired, was deleted, or belongs to another account. */
export class SnapshotNotFound extends BuntimeError {}

/** 409 `context_lost`: the context and its variables are gone; `details.reason` says why. */
export class ContextLost extends BuntimeError {}

/** 404 `terminal_not_found`: the session has no terminal with this id. */
export class TerminalNotFound extends BuntimeError {}

/** 416 `range_not_satisfiable`: the range is outside the file; `details.size` is the file's size in bytes. */
export class RangeNotSatisfiable extends BuntimeError {}

/**
 * 429 `resource_limit_exceeded`: the plan has no room for another one, such as an open stream, a process or a snapshot;
 * `details.resource` says of what.
 */
export class ResourceLimitExceeded extends BuntimeError {}

/** 408 `execution_timeout`: the request took too long. A program that runs too long is a result with `timedOut`. */
export class ExecutionTimeout extends BuntimeError {}

/** 409 `idempotency_in_progress`: the first request with this key is still running. */
export class IdempotencyInProgress extends BuntimeError {}

/** 409 `outcome_unknown`: the first request with this key failed in the middle. It is never run again. */
export class OutcomeUnknown extends BuntimeError {}

/** 422 `idempotency_key_reused`: the key was used for a different request. */
export class IdempotencyKeyReused extends BuntimeError {}

/** 409 `session_busy`: another call in progress conflicts with this one. */
export class SessionBusy extends BuntimeError {}

/** 409 `invalid_state`: the session's state does not allow this call. */
export class InvalidState extends BuntimeError {}

/** 413 `payload_too_large`: a file or body exceeds the plan's limit; `details.limit` is in bytes. */
export class PayloadTooLarge extends BuntimeError {}

/** 429 `rate_limit_exceeded`: too many requests with this key in this minute; see `retryAfter`. */
export class RateLimitExceeded extends BuntimeError {}

/** 429 `session_limit_exceeded`: the plan's concurrent sessions are all in use. */
export class SessionLimitExceeded extends BuntimeError {}

/** 507 `memory_limit_exceeded`: the session ran out of memory; for a run, `details` has the output so far. */
export class MemoryLimitExceeded extends BuntimeError {}

/** 507 `disk_full`: the session's disk is full; for a run, `details` has the output so far. */
export class DiskFull extends BuntimeError {}

/**
 * `unavailable`. 503: no capacity now, or the session is waking. 502: nothing listens on the port of `fetch`.
 *
 * While files come from the archive, `details` has `restoredBytes` and `totalBytes`.
 */
export class Unavailable extends BuntimeError {}

/** 500 `internal_error`: the server failed. */
export class InternalError extends BuntimeError {}

/** `connection_failed`: there was no connection, or it broke before the response was complete. */
export class ConnectionFailed extends BuntimeError {
  /** Whether the request may have arrived. */
  readonly begun: boolean;

  constructor(message: string, fields: { begun: boolean; cause?: unknown }) {
    super(message, { code: "connection_failed", retryable: true, cause: fields.cause });
    this.begun = fields.begun;
  }
}

/** @internal Whether the code says that the server's certificate was refused, so that nothing was sent. */
export function isUntrusted(code: string): boolean {
  return /CERT|UNABLE_TO_(GET|VERIFY)|SELF_SIGNED/.test(code);
}

/** @internal Names the server. `begun`: the request may have arrived. */
export function connectionFailed(url: string, reason: string, begun: boolean, cause?: unknown): ConnectionFailed {
  const { origin } = new URL(url);
  const message = begun ? `The connection broke: ${origin}: ${reason}` : `Cannot connect to ${origin}: ${reason}`;
  return new ConnectionFailed(message, { begun, cause });
}

/** `request_timeout`: the response, or the next part of it, did not arrive in time. */
export class RequestTimeout extends BuntimeError {
  constructor(message: string) {
    super(message, { code: "request_timeout", retryable: true });
  }
}

/** `invalid_signature`: `verifyWebhook` found that a request is not from the webhook, or is too old. */
export class InvalidSignature extends BuntimeError {
  constructor(message: string) {
    super(message, { code: "invalid_signature" });
  }
}

const TAIL = 2000; // characters of a failed run's output that its error shows

/**
 * `execution_failed`: `ExecutionResult.check` found that the program failed. The message has the exit code and the end
 * of the output.
 */
export class ExecutionFailed extends BuntimeError {
  readonly result: ExecuteResponse;

  constructor(result: ExecuteResponse) {
    const parts = [`The program ${result.timedOut ? "ran out of time" : `exited with code ${result.exitCode}`}.`];
    for (const stream of ["stderr", "stdout"] as const) {
      const tail = result[stream].slice(-TAIL).trim();
      if (tail !== "") parts.push(`--- ${stream}${result[stream].length > TAIL ? " ends with" : ""} ---\n${tail}`);
    }
    super(parts.join("\n"), { code: "execution_failed", details: { exitCode: result.exitCode } });
    this.result = result;
  }
}

const CLASSES: Record<string, typeof BuntimeError> = {
  invalid_request: InvalidRequest,
  unauthorized: Unauthorized,
  forbidden: Forbidden,
  session_not_found: SessionNotFound,
  name_taken: NameTaken,
  not_found: NotFound,
  method_not_allowed: MethodNotAllowed,
  file_not_found: FileNotFound,
  file_conflict: FileConflict,
  process_not_found: ProcessNotFound,
  service_not_found: ServiceNotFound,
  context_not_found: ContextNotFound,
  image_not_found: ImageNotFound,
  key_not_found: KeyNotFound,
  webhook_not_found: WebhookNotFound,
  delivery_not_found: DeliveryNotFound,
  snapshot_not_found: SnapshotNotFound,
  context_lost: ContextLost,
  terminal_not_found: TerminalNotFound,
  range_not_satisfiable: RangeNotSatisfiable,
  resource_limit_exceeded: ResourceLimitExceeded,
  execution_timeout: ExecutionTimeout,
  idempotency_in_progress: IdempotencyInProgress,
  outcome_unknown: OutcomeUnknown,
  idempotency_key_reused: IdempotencyKeyReused,
  session_busy: SessionBusy,
  invalid_state: InvalidState,
  payload_too_large: PayloadTooLarge,
  rate_limit_exceeded: RateLimitExceeded,
  session_limit_exceeded: SessionLimitExceeded,
  memory_limit_exceeded: MemoryLimitExceeded,
  disk_full: DiskFull,
  unavailable: Unavailable,
  internal_error: InternalError,
};

/** Codes by status for a response without an error object, such as a proxy's. */
const BARE: Record<number, string> = {
  400: "invalid_request",
  401: "unauthorized",
  403: "forbidden",
  404: "not_found",
  429: "rate_limit_exceeded",
  503: "unavailable",
};

/** @internal Returns the error for a response's `error` object, or for a response without one. */
export function errorOf(
  shown: unknown,
  status: number | null,
  requestId: string | null = null,
  retryAfter: number | null = null,
): BuntimeError {
  const told = isRecord(shown) ? shown : {};
  const bare = status === null ? undefined : BARE[status];
  const code = typeof told.code === "string" ? told.code : (bare ?? "unexpected_answer");
  const message =
    typeof told.message === "string"
      ? told.message
      : `The server answered ${status} without an error object. Is it a buntime server?`;
  const details = isRecord(told.details) ? told.details : {};
  const named = typeof details.retryAfter === "number" ? details.retryAfter : null;
  const retryable = typeof told.retryable === "boolean" ? told.retryable : status !== null && isPassing(status);
  const known = Object.hasOwn(CLASSES, code) ? CLASSES[code] : undefined;
  return new (known ?? BuntimeError)(message, {
    code,
    status,
    details,
    retryable,
    retryAfter: retryAfter ?? named,
    requestId,
  });
}

function isPassing(status: number): boolean {
  return status === 408 || status === 429 || status === 502 || status === 503 || status === 504;
}

/** @internal */
export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** @internal Returns the seconds of a `Retry-After` header, or null if it is missing or a date, as proxies send. */
export function secondsOf(retryAfter: string | null): number | null {
  return retryAfter !== null && /^\d+$/.test(retryAfter) ? Number(retryAfter) : null;
}
