"""Every failure: one class for each of the server's codes, and two for what happens on the way to it."""

from collections.abc import Mapping
from typing import ClassVar


class BuntimeError(Exception):
    """Base of all errors of this package. A code that this version does not know is a plain `BuntimeError`.

    `code`: the stable word for what happened. `status`: of HTTP, None where there was no answer. `details`: what the
    server says beside the message. `retryable`: whether the same call may succeed later. `request_id`: the answer's
    `X-Request-Id`, which the server's log has. `retry_after`: seconds to wait, where the server names them.
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
        """Errors cross processes, as those of a pool of workers do."""
        return _again, (type(self), self.args, self.__dict__)


def _again(kind: type[BuntimeError], arguments: tuple[object, ...], fields: dict[str, object]) -> BuntimeError:
    failure = kind.__new__(kind, *arguments)
    failure.__dict__.update(fields)
    return failure


class InvalidRequest(BuntimeError, code="invalid_request"):
    """400: a parameter is wrong; `details["field"]` names the first bad one."""


class Unauthorized(BuntimeError, code="unauthorized"):
    """401: the key is missing, malformed, unknown or revoked."""


class Forbidden(BuntimeError, code="forbidden"):
    """403: the plan does not allow it, or the account is suspended."""


class SessionNotFound(BuntimeError, code="session_not_found"):
    """404: no such session, expired, deleted, or somebody else's."""


class NotFound(BuntimeError, code="not_found"):
    """404: the server has no such path."""


class MethodNotAllowed(BuntimeError, code="method_not_allowed"):
    """405: the path exists, the method does not."""


class FileNotFound(BuntimeError, code="file_not_found"):
    """404: `details["path"]` is not there."""


class FileConflict(BuntimeError, code="file_conflict"):
    """409: what is at the path is not what the call needs; `details["reason"]` is the errno name."""


class ProcessNotFound(BuntimeError, code="process_not_found"):
    """404: the session has no process with this id."""


class ContextNotFound(BuntimeError, code="context_not_found"):
    """404: the session has no context with this id."""


class ContextLost(BuntimeError, code="context_lost"):
    """409: the context is gone with its variables; `details["reason"]` says why."""


class TerminalNotFound(BuntimeError, code="terminal_not_found"):
    """404: the session has no terminal with this id."""


class RangeNotSatisfiable(BuntimeError, code="range_not_satisfiable"):
    """416: nothing of the range is in the file; `details["size"]` in bytes."""


class ResourceLimitExceeded(BuntimeError, code="resource_limit_exceeded"):
    """429: as many open streams, processes, contexts or terminals as the plan allows."""


class ExecutionTimeout(BuntimeError, code="execution_timeout"):
    """408: the request ran past its time. A program that does is a result with `timed_out`."""


class IdempotencyInProgress(BuntimeError, code="idempotency_in_progress"):
    """409: the first request with this key still runs."""


class IdempotencyKeyReused(BuntimeError, code="idempotency_key_reused"):
    """422: the key belongs to another request."""


class SessionBusy(BuntimeError, code="session_busy"):
    """409: the call cannot run beside one that is under way."""


class InvalidState(BuntimeError, code="invalid_state"):
    """409: the call cannot run in this state of the session."""


class PayloadTooLarge(BuntimeError, code="payload_too_large"):
    """413: a file or body is over the plan's limit; `details["limit"]` in bytes."""


class RateLimitExceeded(BuntimeError, code="rate_limit_exceeded"):
    """429: too many requests with this key in this minute; see `retry_after`."""


class SessionLimitExceeded(BuntimeError, code="session_limit_exceeded"):
    """429: the plan's concurrent sessions are all in use."""


class MemoryLimitExceeded(BuntimeError, code="memory_limit_exceeded"):
    """507: the session's memory was used up; of a run, `details` has its output so far."""


class DiskFull(BuntimeError, code="disk_full"):
    """507: the session's disk limit is reached; of a run, `details` has its output so far."""


class Unavailable(BuntimeError, code="unavailable"):
    """503: no capacity now, or still waking; see `retry_after`."""


class InternalError(BuntimeError, code="internal_error"):
    """500: the server's fault."""


class ConnectionFailed(BuntimeError):
    """There was no connection, or it broke before the answer was whole. `begun`: the request may have arrived."""

    def __init__(self, message: str, *, begun: bool) -> None:
        super().__init__(message, code="connection_failed", retryable=True)
        self.begun = begun


class RequestTimeout(BuntimeError):
    """The answer, or the next part of it, did not come in time."""

    def __init__(self, message: str) -> None:
        super().__init__(message, code="request_timeout", retryable=True)


# What stands for an answer that is none of the server's own, a proxy's say, by its status.
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
    """The error of an answer's `error` object, or of a body that is none."""
    told: Mapping[str, object] = shown if isinstance(shown, Mapping) else {}
    code = told.get("code")
    if not isinstance(code, str):
        code = _BARE.get(status or 0, "unexpected_answer")
    message, details, retryable = told.get("message"), told.get("details"), told.get("retryable")
    found = details if isinstance(details, Mapping) else {}
    named = found.get("retryAfter")
    return BuntimeError.codes.get(code, BuntimeError)(
        message if isinstance(message, str) else f"The server answered {status} without an error of its own.",
        code=code,
        status=status,
        details=found,
        retryable=retryable if isinstance(retryable, bool) else status in _PASSING,
        request_id=request_id,
        retry_after=retry_after if retry_after is not None else float(named) if isinstance(named, int) else None,
    )


def seconds_of(retry_after: str | None) -> float | None:
    """What a `Retry-After` header asks for; None where there is none, and where a proxy names a date."""
    return float(retry_after) if retry_after is not None and retry_after.isdecimal() else None
