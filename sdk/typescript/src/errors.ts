/** Every failure: one class for each of the server's codes, and two for what happens on the way to it. */

export interface ErrorFields {
  code: string;
  /** HTTP status; null where there was no answer. */
  status?: number | null | undefined;
  details?: Record<string, unknown> | undefined;
  /** Whether the same call may succeed later. */
  retryable?: boolean | undefined;
  /** Seconds to wait, where the server names them. */
  retryAfter?: number | null | undefined;
  requestId?: string | null | undefined;
  cause?: unknown;
}

/** Base of all errors of this package. A code that this version does not know is a plain `BuntimeError`. */
export class BuntimeError extends Error {
  /** The stable word for what happened, such as `session_not_found`. */
  readonly code: string;
  /** HTTP status; null where there was no answer. */
  readonly status: number | null;
  /** What the server says beside the message, such as `field`, `limit`, `plan` or `path`. */
  readonly details: Record<string, unknown>;
  /** Whether the same call may succeed later. */
  readonly retryable: boolean;
  /** Seconds to wait, where the server names them. */
  readonly retryAfter: number | null;
  /** The `X-Request-Id` of the answer: the server's log has it. */
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

/** `session_not_found` → `SessionNotFound`. A bundler may call the class itself something else. */
function nameOf(code: string): string {
  return code.replace(/(?:^|_)(\w)/g, (_, letter: string) => letter.toUpperCase());
}

/** 400 `invalid_request`: a parameter is wrong; `details.field` names the first bad one. */
export class InvalidRequest extends BuntimeError {}

/** 401 `unauthorized`: the key is missing, malformed, unknown or revoked. */
export class Unauthorized extends BuntimeError {}

/** 403 `forbidden`: the plan does not allow it, or the account is suspended. */
export class Forbidden extends BuntimeError {}

/** 404 `session_not_found`: no such session, expired, deleted, or somebody else's. */
export class SessionNotFound extends BuntimeError {}

/** 404 `not_found`: the server has no such path. */
export class NotFound extends BuntimeError {}

/** 405 `method_not_allowed`. */
export class MethodNotAllowed extends BuntimeError {}

/** 404 `file_not_found`: `details.path` is not there. */
export class FileNotFound extends BuntimeError {}

/** 409 `file_conflict`: what is at the path is not what the call needs; `details.reason` is the errno name. */
export class FileConflict extends BuntimeError {}

/** 404 `process_not_found`: the session has no process with this id. */
export class ProcessNotFound extends BuntimeError {}

/** 404 `context_not_found`: the session has no context with this id. */
export class ContextNotFound extends BuntimeError {}

/** 409 `context_lost`: the context is gone with its variables; `details.reason` says why. */
export class ContextLost extends BuntimeError {}

/** 404 `terminal_not_found`: the session has no terminal with this id. */
export class TerminalNotFound extends BuntimeError {}

/** 416 `range_not_satisfiable`: nothing of the range is in the file; `details.size` in bytes. */
export class RangeNotSatisfiable extends BuntimeError {}

/** 429 `resource_limit_exceeded`: as many streams, processes, contexts or terminals as the plan allows. */
export class ResourceLimitExceeded extends BuntimeError {}

/** 408 `execution_timeout`: the request ran past its time. A program that does is a result with `timedOut`. */
export class ExecutionTimeout extends BuntimeError {}

/** 409 `idempotency_in_progress`: the first request with this key still runs. */
export class IdempotencyInProgress extends BuntimeError {}

/** 422 `idempotency_key_reused`: the key belongs to another request. */
export class IdempotencyKeyReused extends BuntimeError {}

/** 409 `session_busy`: the call cannot run beside one that is under way. */
export class SessionBusy extends BuntimeError {}

/** 409 `invalid_state`: the call cannot run in this state of the session. */
export class InvalidState extends BuntimeError {}

/** 413 `payload_too_large`: a file or body is over the plan's limit; `details.limit` in bytes. */
export class PayloadTooLarge extends BuntimeError {}

/** 429 `rate_limit_exceeded`: too many requests with this key in this minute; see `retryAfter`. */
export class RateLimitExceeded extends BuntimeError {}

/** 429 `session_limit_exceeded`: the plan's concurrent sessions are all in use. */
export class SessionLimitExceeded extends BuntimeError {}

/** 507 `memory_limit_exceeded`: the session's memory was used up; of a run, `details` has its output so far. */
export class MemoryLimitExceeded extends BuntimeError {}

/** 507 `disk_full`: the session's disk limit is reached; of a run, `details` has its output so far. */
export class DiskFull extends BuntimeError {}

/** 503 `unavailable`: no capacity now, or still waking; see `retryAfter`. */
export class Unavailable extends BuntimeError {}

/** 500 `internal_error`: the server's fault. */
export class InternalError extends BuntimeError {}

/** `connection_failed`: there was no connection, or it broke before the answer was whole. */
export class ConnectionFailed extends BuntimeError {
  /** False where the request surely did not reach the server. */
  readonly begun: boolean;

  constructor(message: string, fields: { begun: boolean; cause?: unknown }) {
    super(message, { code: "connection_failed", retryable: true, cause: fields.cause });
    this.begun = fields.begun;
  }
}

/** `request_timeout`: the answer, or the next part of it, did not come in time. */
export class RequestTimeout extends BuntimeError {
  constructor(message: string) {
    super(message, { code: "request_timeout", retryable: true });
  }
}

const CLASSES: Record<string, typeof BuntimeError> = {
  invalid_request: InvalidRequest,
  unauthorized: Unauthorized,
  forbidden: Forbidden,
  session_not_found: SessionNotFound,
  not_found: NotFound,
  method_not_allowed: MethodNotAllowed,
  file_not_found: FileNotFound,
  file_conflict: FileConflict,
  process_not_found: ProcessNotFound,
  context_not_found: ContextNotFound,
  context_lost: ContextLost,
  terminal_not_found: TerminalNotFound,
  range_not_satisfiable: RangeNotSatisfiable,
  resource_limit_exceeded: ResourceLimitExceeded,
  execution_timeout: ExecutionTimeout,
  idempotency_in_progress: IdempotencyInProgress,
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

/** What stands where an answer is expected that is not one of the server's, by its status. */
const BARE: Record<number, string> = {
  400: "invalid_request",
  401: "unauthorized",
  403: "forbidden",
  404: "not_found",
  429: "rate_limit_exceeded",
  503: "unavailable",
};

/** @internal The error of an answer's `error` object, or of a body that is none: a proxy's, say. */
export function errorOf(
  shown: unknown,
  status: number | null,
  requestId: string | null = null,
  retryAfter: number | null = null,
): BuntimeError {
  const told = isRecord(shown) ? shown : {};
  const bare = status === null ? undefined : BARE[status];
  const code = typeof told.code === "string" ? told.code : (bare ?? "unexpected_answer");
  const message = typeof told.message === "string" ? told.message : `The server answered ${status} without an error.`;
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

/** @internal What a `Retry-After` header asks for; null where there is none, and where a proxy names a date. */
export function secondsOf(retryAfter: string | null): number | null {
  return retryAfter !== null && /^\d+$/.test(retryAfter) ? Number(retryAfter) : null;
}
