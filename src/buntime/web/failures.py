"""Turns failures into answers: the table of statuses, and the JSON of an error."""

from collections.abc import Mapping
from http import HTTPStatus

from buntime import errors
from buntime.errors import BuntimeError
from buntime.web.exchange import Headers, Reply
from buntime.web.wire.errors import Failure, FailureAnswer
from buntime.web.wire.shapes import encode

STATUS: Mapping[type[BuntimeError], HTTPStatus] = {
    errors.InvalidRequest: HTTPStatus.BAD_REQUEST,
    errors.Unauthorized: HTTPStatus.UNAUTHORIZED,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.SessionNotFound: HTTPStatus.NOT_FOUND,
    errors.NameTaken: HTTPStatus.CONFLICT,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.FileNotFound: HTTPStatus.NOT_FOUND,
    errors.ProcessNotFound: HTTPStatus.NOT_FOUND,
    errors.ServiceNotFound: HTTPStatus.NOT_FOUND,
    errors.ContextNotFound: HTTPStatus.NOT_FOUND,
    errors.TerminalNotFound: HTTPStatus.NOT_FOUND,
    errors.KeyNotFound: HTTPStatus.NOT_FOUND,
    errors.ImageNotFound: HTTPStatus.NOT_FOUND,
    errors.WebhookNotFound: HTTPStatus.NOT_FOUND,
    errors.DeliveryNotFound: HTTPStatus.NOT_FOUND,
    errors.ContextLost: HTTPStatus.CONFLICT,
    errors.RangeNotSatisfiable: HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    errors.ResourceLimitExceeded: HTTPStatus.TOO_MANY_REQUESTS,
    errors.MethodNotAllowed: HTTPStatus.METHOD_NOT_ALLOWED,
    errors.ExecutionTimeout: HTTPStatus.REQUEST_TIMEOUT,
    errors.IdempotencyInProgress: HTTPStatus.CONFLICT,
    errors.OutcomeUnknown: HTTPStatus.CONFLICT,
    errors.SessionBusy: HTTPStatus.CONFLICT,
    errors.InvalidState: HTTPStatus.CONFLICT,
    errors.SnapshotNotFound: HTTPStatus.NOT_FOUND,
    errors.FileConflict: HTTPStatus.CONFLICT,
    errors.PayloadTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.IdempotencyKeyReused: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.RateLimitExceeded: HTTPStatus.TOO_MANY_REQUESTS,
    errors.SessionLimitExceeded: HTTPStatus.TOO_MANY_REQUESTS,
    errors.MemoryLimitExceeded: HTTPStatus.INSUFFICIENT_STORAGE,
    errors.DiskFull: HTTPStatus.INSUFFICIENT_STORAGE,
    errors.Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.BuntimeError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
BY_CODE = {kind.code: status.value for kind, status in STATUS.items()}
RETRY_AFTER = {  # seconds, if the failure itself has no value
    "idempotency_in_progress": 1,
    "session_limit_exceeded": 60,
    "resource_limit_exceeded": 10,
    "rate_limit_exceeded": 60,
    "unavailable": 5,
}
FINAL = frozenset({404, 409, 413, 507})


def reply_to(failure: BuntimeError) -> Reply:
    """The answer for the failure, with the headers that belong to its status."""
    status = BY_CODE.get(failure.code, 500)
    headers: Headers = []
    if status == HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    if failure.code == "range_not_satisfiable":
        headers.append((b"content-range", f"bytes */{failure.details['size']}".encode()))
    if failure.code in RETRY_AFTER:
        seconds = failure.details.get("retryAfter", RETRY_AFTER[failure.code])
        headers.append((b"retry-after", str(seconds).encode()))
    return Reply(status, encode(FailureAnswer(error=failure_of(failure))), headers=headers, code=failure.code)


def failure_of(failure: BuntimeError) -> Failure:
    """The failure's JSON shape."""
    return Failure(code=failure.code, retryable=failure.retryable, message=failure.message, details=failure.details)


def is_final(failure: BuntimeError) -> bool:
    """Whether a retry with the same Idempotency-Key gets this failure again.

    Failures before any work (400, 401, 403, 429) and failures that tell nothing about it (408, 5xx) are not final. A
    run that reached its memory or disk limit (507) did happen, so that failure is final.
    """
    return not failure.retryable and BY_CODE.get(failure.code) in FINAL


def did_nothing(failure: BuntimeError) -> bool:
    """Whether a failure that is not final tells that the work was refused before it began."""
    status = BY_CODE.get(failure.code, 500)
    return status < HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.REQUEST_TIMEOUT


def bare() -> BuntimeError:
    """The failure that clients see for a bug or fault of the server."""
    return BuntimeError("Something went wrong on our side. The server's log has details under this X-Request-Id.")
