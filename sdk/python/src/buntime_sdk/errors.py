"""All errors: one class for each server code, and two for failures on the way to the server."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from buntime_sdk.shapes import ExecutionResult

TAIL = 2000  # characters of a failed run's output that its error shows


class BuntimeError(Exception):
    """Base of all errors of this package. A code that this version does not know is a plain `BuntimeError`.

    `code`: a stable identifier such as `session_not_found`. `status`: the HTTP status, or None without a response.
    `details`: the server's further fields. `retryable`: whether the same call may succeed later. `request_id`: the
    response's `X-Request-Id`, which is also in the server's log. `retry_after`: seconds to wait, if the server says so.
    """

    codes: ClassVar[dict[str, type["BuntimeError"]]] = {}

    def __init_subclass__(cls, code: str | None = None) -> None:
        if code is not None:
            BuntimeError.codes[code] = cls

    def __init__(
        self,
        message: str,
        *,
        code: str,
        status: int | None = None,
        details: Mapping[str, object] | None = None,
        retryable: bool = False,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.status = status
        self.details: Mapping[str, object] = details or {}
        self.retryable = retryable
        self.request_id = request_id
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[object, ...]:
        """Makes errors picklable with their fields, so that they survive a process pool."""
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[BuntimeError], arguments: tuple[object, ...], fields: dict[str, object]) -> BuntimeError:
    failure = kind.__new__(kind, *arguments)
    failure.__dict__.update(fields)
    return failure


class InvalidRequest(BuntimeError, code="invalid_request"):
    """400: a parameter is invalid; `details["field"]` names the first one."""


class Unauthorized(BuntimeError, code="unauthorized"):
    """401: the key is missing, malformed, unknown or revoked."""


class Forbidden(BuntimeError, code="forbidden"):
    """403: the plan does not allow it, or the account is suspended."""


class SessionNotFound(BuntimeError, code="session_not_found"):
    """404: the session does not exist, has expired, was deleted, or belongs to another account."""


class NameTaken(BuntimeError, code="name_taken"):
    """409: another session of the account has the name; `details["sessionId"]` is its id."""


class NotFound(BuntimeError, code="not_found"):
    """404: the server has no such path."""


class MethodNotAllowed(BuntimeError, code="method_not_allowed"):
    """405: the path does not support this method."""


class FileNotFound(BuntimeError, code="file_not_found"):
    """404: nothing is at `details["path"]`."""


class FileConflict(BuntimeError, code="file_conflict"):
    """409: the call needs something else at the path; `details["reason"]` is the errno name."""


class ProcessNotFound(BuntimeError, code="process_not_found"):
    """404: the session has no process with this id."""


class ServiceNotFound(BuntimeError, code="service_not_found"):
    """404: the session declares no service with this name."""


class ContextNotFound(BuntimeError, code="context_not_found"):
    """404: the session has no context with this id."""


class KeyNotFound(BuntimeError, code="key_not_found"):
    """404: the key does not exist, is revoked or expired, or belongs to another account."""


class WebhookNotFound(BuntimeError, code="webhook_not_found"):
    """404: the webhook does not exist, or belongs to another account."""


class DeliveryNotFound(BuntimeError, code="delivery_not_found"):
    """404: the webhook has no delivery with this id. Deliveries go with their events, after 30 days."""


class ImageNotFound(BuntimeError, code="image_not_found"):
    """404: the account can use no image with this name."""


class SnapshotNotFound(BuntimeError, code="snapshot_not_found"):
    """404: the snapshot does not exist, has expired, was deleted, or belongs to another account."""


class ContextLost(BuntimeError, code="context_lost"):
    """409: the context and its variables are gone; `details["reason"]` says why."""


class TerminalNotFound(BuntimeError, code="terminal_not_found"):
    """404: the session has no terminal with this id."""


class RangeNotSatisfiable(BuntimeError, code="range_not_satisfiable"):
    """416: the range is outside the file; `details["size"]` is the file's size in bytes."""


class ResourceLimitExceeded(BuntimeError, code="resource_limit_exceeded"):
    """429: the plan has no room for another one, such as an open stream, a process or a snapshot; `details["resource"]`
    says of what.
    """


class ExecutionTimeout(BuntimeError, code="execution_timeout"):
    """408: the request took too long. A program that runs too long is a result with `timed_out`."""


class IdempotencyInProgress(BuntimeError, code="idempotency_in_progress"):
    """409: the first request with this key is still running."""


class OutcomeUnknown(BuntimeError, code="outcome_unknown"):
    """409: the first request with this key failed in the middle. It is never run again."""


class IdempotencyKeyReused(BuntimeError, code="idempotency_key_reused"):
    """422: the key was used for a different request."""


class SessionBusy(BuntimeError, code="session_busy"):
    """409: another call in progress conflicts with this one."""


class InvalidState(BuntimeError, code="invalid_state"):
    """409: the session's state does not allow this call."""


class PayloadTooLarge(BuntimeError, code="payload_too_large"):
    """413: a file or body exceeds the plan's limit; `details["limit"]` is in bytes."""


class RateLimitExceeded(BuntimeError, code="rate_limit_exceeded"):
    """429: too many requests with this key in this minute; see `retry_after`."""


class SessionLimitExceeded(BuntimeError, code="session_limit_exceeded"):
    """429: the plan's concurrent sessions are all in use."""


class MemoryLimitExceeded(BuntimeError, code="memory_limit_exceeded"):
    """507: the session ran out of memory; for a run, `details` has the output so far."""


class DiskFull(BuntimeError, code="disk_full"):
    """507: the session's disk is full; for a run, `details` has the output so far."""


class Unavailable(BuntimeError, code="unavailable"):
    """503: no capacity now, or the session is waking. 502: nothing listens on the port of `fetch`.

    While files come from the archive, `details` has `restoredBytes` and `totalBytes`.
    """


class InternalError(BuntimeError, code="internal_error"):
    """500: the server failed."""


class ConnectionFailed(BuntimeError):
    """There was no connection, or it broke before the response was complete. `begun`: it may have arrived."""

    def __init__(self, message: str, *, begun: bool) -> None:
        super().__init__(message, code="connection_failed", retryable=True)
        self.begun = begun


class RequestTimeout(BuntimeError):
    """The response, or the next part of it, did not arrive in time."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="request_timeout", retryable=True)


class InvalidSignature(BuntimeError):
    """`verify_webhook` found that a request is not from the webhook, or is too old."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="invalid_signature")


class ExecutionFailed(BuntimeError):
    """`ExecutionResult.check` found that the program failed. `result`: the whole result. The message has the exit code
    and the end of the output.
    """

    def __init__(self, result: "ExecutionResult") -> None:
        reason = "ran out of time" if result.timed_out else f"exited with code {result.exit_code}"
        parts = [f"The program {reason}."]
        for name, output in (("stderr", result.stderr), ("stdout", result.stdout)):
            if tail := output[-TAIL:].strip():
                parts.append(f"--- {name} {'ends with ' if len(output) > TAIL else ''}---\n{tail}")
        super().__init__("\n".join(parts), code="execution_failed", details={"exitCode": result.exit_code})
        self.result = result


# Codes by status for a response without an error object, such as a proxy's.
_BARE = {
    400: "invalid_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    429: "rate_limit_exceeded",
    503: "unavailable",
}
_PASSING = frozenset({408, 429, 502, 503, 504})


def error_of(
    shown: object, status: int | None, request_id: str | None = None, retry_after: float | None = None
) -> BuntimeError:
    """Returns the error for a response's `error` object, or for a response without one."""
    told: Mapping[str, object] = shown if isinstance(shown, Mapping) else {}
    code = told.get("code")
    if not isinstance(code, str):
        code = _BARE.get(status or 0, "unexpected_answer")
    message, details, retryable = told.get("message"), told.get("details"), told.get("retryable")
    found = details if isinstance(details, Mapping) else {}
    named = found.get("retryAfter")
    return BuntimeError.codes.get(code, BuntimeError)(
        message if isinstance(message, str) else f"The server answered {status} without an error object.",
        code=code,
        status=status,
        details=found,
        retryable=retryable if isinstance(retryable, bool) else status in _PASSING,
        request_id=request_id,
        retry_after=retry_after if retry_after is not None else float(named) if isinstance(named, int) else None,
    )


def seconds_of(retry_after: str | None) -> float | None:
    """Returns the seconds of a `Retry-After` header, or None if it is missing or a date, as proxies send."""
    return float(retry_after) if retry_after is not None and retry_after.isdecimal() else None
