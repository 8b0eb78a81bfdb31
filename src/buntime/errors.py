"""Every failure that a caller can act on.

An error has a stable `code`, a message that is safe to show, `details` (plain JSON values) and says
whether the same request may succeed later (`retryable`). Which HTTP status a code has is the web
layer's business. Anything that is not a `BuntimeError` is our fault and is shown as `internal_error`.
"""

from typing import ClassVar


class BuntimeError(Exception):
    """Base of all failures with a meaning for the caller."""

    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class InvalidRequest(BuntimeError):
    """A parameter is wrong; `details.field` names the first bad one."""

    code = "invalid_request"

    def __init__(self, field: str, message: str, **details: object) -> None:
        super().__init__(message, field=field, **details)


class Unauthorized(BuntimeError):
    """The key is missing, malformed, unknown or revoked."""

    code = "unauthorized"


class Forbidden(BuntimeError):
    """The plan does not allow it, or the account is suspended; `details` has `plan` and `limit` where they apply."""

    code = "forbidden"


class SessionNotFound(BuntimeError):
    """No such session, expired, deleted, or somebody else's: one answer for all four."""

    code = "session_not_found"

    def __init__(self, session_id: str) -> None:
        super().__init__("No session with this id. It may have expired or been deleted.", sessionId=session_id)


class NotFound(BuntimeError):
    """No such route."""

    code = "not_found"


class MethodNotAllowed(BuntimeError):
    """The route exists, the method does not."""

    code = "method_not_allowed"


class FileNotFound(BuntimeError):
    """The file inside the session is missing."""

    code = "file_not_found"

    def __init__(self, path: str) -> None:
        super().__init__(f"There is no file or directory at {path!r} in this session.", path=path)


class FileConflict(BuntimeError):
    """What is at the path is not what the operation needs; `details.reason` is the errno name."""

    code = "file_conflict"

    def __init__(self, path: str, reason: str, message: str) -> None:
        super().__init__(message, path=path, reason=reason)


class ProcessNotFound(BuntimeError):
    """The session has no such process, and had none."""

    code = "process_not_found"

    def __init__(self, process_id: str) -> None:
        super().__init__("This session has no process with this id.", processId=process_id)


class ContextNotFound(BuntimeError):
    """The session has no such context, and had none, or it was deleted."""

    code = "context_not_found"

    def __init__(self, context_id: str) -> None:
        super().__init__("This session has no context with this id.", contextId=context_id)


class ContextLost(BuntimeError):
    """The context was there, and its variables are gone; `details.reason` says why where it is known."""

    code = "context_lost"

    def __init__(self, context_id: str, reason: str = "runtime_ended") -> None:
        why = {
            "deep_sleep": "the session was in deep sleep",
            "timeout": "a run had to be killed at its timeout",
            "killed": "its process was killed",
            "exited": "its program has ended itself",
        }.get(reason, "the session's runtime ended")
        super().__init__(
            f"This context is gone with its variables: {why}. Create another one.", contextId=context_id, reason=reason
        )


class TerminalNotFound(BuntimeError):
    """The session has no such terminal: its shell has ended, or the session slept."""

    code = "terminal_not_found"

    def __init__(self, terminal_id: str) -> None:
        super().__init__(
            "This session has no terminal with this id. Its shell may have ended, or the session was in deep sleep.",
            terminalId=terminal_id,
        )


class RangeNotSatisfiable(BuntimeError):
    """Nothing of the range that was asked for is in the file; `details.size` in bytes."""

    code = "range_not_satisfiable"

    def __init__(self, path: str, size: int) -> None:
        super().__init__(f"{path!r} has {size} bytes: nothing of that range.", path=path, size=size)


class ResourceLimitExceeded(BuntimeError):
    """As many as the plan allows are there; `details`: `resource`, `limit`, `scope` (session or account), `plan`."""

    code = "resource_limit_exceeded"
    retryable = True

    def __init__(self, resource: str, limit: int, scope: str, plan: str) -> None:
        super().__init__(
            f"The {plan} plan allows {limit} {resource} at a time in one {scope}. End one first.",
            resource=resource,
            limit=limit,
            scope=scope,
            plan=plan,
        )


class ExecutionTimeout(BuntimeError):
    """The request, not the program, ran past its time."""

    code = "execution_timeout"
    retryable = True


class IdempotencyInProgress(BuntimeError):
    """The first request with this key is still running."""

    code = "idempotency_in_progress"
    retryable = True


class IdempotencyKeyReused(BuntimeError):
    """The key belongs to another request."""

    code = "idempotency_key_reused"


class SessionBusy(BuntimeError):
    """The operation cannot run beside one that is under way."""

    code = "session_busy"
    retryable = True


class InvalidState(BuntimeError):
    """The operation cannot run in this state of the session."""

    code = "invalid_state"


class PayloadTooLarge(BuntimeError):
    """A file, a body or an output is over the limit; `details` has `limit` in bytes."""

    code = "payload_too_large"


class RateLimitExceeded(BuntimeError):
    """Too many requests with this key in this minute; `details.retryAfter` in seconds."""

    code = "rate_limit_exceeded"
    retryable = True


class SessionLimitExceeded(BuntimeError):
    """The plan's concurrent sessions are all in use."""

    code = "session_limit_exceeded"
    retryable = True

    def __init__(self, plan: str, limit: int, active: int) -> None:
        super().__init__(
            f"The {plan} plan allows {limit} concurrent sessions and {active} are in use. "
            "Delete one or wait until one expires.",
            plan=plan,
            limit=limit,
            active=active,
        )


class TooManyTokens(InvalidState):
    """The session has as many valid preview tokens as it may have."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"This session has {limit} preview tokens that are valid. Revoke some, or make tokens with a shorter ttl.",
            limit=limit,
        )


class SessionDamaged(InvalidState):
    """What is kept of the session cannot be brought back: a final failure. `details.reason` says which kind."""


class MemoryLimitExceeded(BuntimeError):
    """The kernel ended a process of the run because the session's memory was used up."""

    code = "memory_limit_exceeded"


class DiskFull(BuntimeError):
    """The session's disk limit is reached."""

    code = "disk_full"


class Unavailable(BuntimeError):
    """No capacity now; `details.retryAfter` in seconds."""

    code = "unavailable"
    retryable = True

    def __init__(self, message: str, retry_after: int = 5, **details: object) -> None:
        super().__init__(message, retryAfter=retry_after, **details)


class StillWaking(Unavailable):
    """The wake takes longer than a request waits for it, and goes on: nothing of the request was begun."""

    def __init__(self) -> None:
        super().__init__("The session is still waking.", 1, waking=True)


class StaleSession(Exception):
    """A change expected a version of the session that is no longer the stored one. Never shown."""
