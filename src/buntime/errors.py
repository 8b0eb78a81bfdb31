"""Every failure that a caller can act on.

An error has a stable `code`, a message that is safe to show, and `details` of plain JSON values. `retryable` says
whether the same request may succeed later. The web layer maps codes to HTTP statuses. Any other exception is our fault
and is shown as `internal_error`.
"""

from collections.abc import Sequence
from typing import ClassVar


class BuntimeError(Exception):
    """The base of all failures with a meaning for the caller."""

    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class InvalidRequest(BuntimeError):
    """A parameter is wrong. `details.field` names the first wrong one."""

    code = "invalid_request"

    def __init__(self, field: str, message: str, **details: object) -> None:
        super().__init__(message, field=field, **details)

    @classmethod
    def not_one_of(cls, field: str, allowed: Sequence[str], sent: str) -> "InvalidRequest":
        """The field takes some values only. `sent`: what the client sent, as the message shows it."""
        *others, last = allowed
        words = f"{', '.join(others)} or {last}" if others else last
        return cls(field, f"{field} must be {words}, not {sent}.")


class Unauthorized(BuntimeError):
    """The key is missing, malformed, unknown, revoked or expired."""

    code = "unauthorized"


class Forbidden(BuntimeError):
    """The key, the plan or the account's status does not allow it. `details` has `scope`, `plan`, `limit` where they
    apply."""

    code = "forbidden"


class MissingScope(Forbidden):
    """The key does not have the scope that the call needs."""

    def __init__(self, scope: str, scopes: Sequence[str]) -> None:
        """`scopes`: those that the key has."""
        super().__init__(
            f"This call needs a key with the scope {scope}. This key has {', '.join(scopes)}.", scope=scope
        )


class SessionNotFound(BuntimeError):
    """The session does not exist, has expired, was deleted, or belongs to another account: one answer for all four."""

    code = "session_not_found"

    def __init__(self, session_id: str) -> None:
        super().__init__("No session with this id. It may have expired or been deleted.", sessionId=session_id)


class NameTaken(BuntimeError):
    """Another session of the account has this name. `details.sessionId` is its id."""

    code = "name_taken"

    def __init__(self, name: str, session_id: str) -> None:
        super().__init__(f"The session {session_id} has the name {name!r}.", name=name, sessionId=session_id)


class NotFound(BuntimeError):
    """No such route."""

    code = "not_found"


class MethodNotAllowed(BuntimeError):
    """The route exists, the method does not."""

    code = "method_not_allowed"


class FileNotFound(BuntimeError):
    """There is no file at the path."""

    code = "file_not_found"

    def __init__(self, path: str) -> None:
        super().__init__(f"There is no file or directory at {path!r} in this session.", path=path)


class FileConflict(BuntimeError):
    """What is at the path is not what the operation needs. `details.reason` is the name of the errno."""

    code = "file_conflict"

    def __init__(self, path: str, reason: str, message: str) -> None:
        super().__init__(message, path=path, reason=reason)


class ProcessNotFound(BuntimeError):
    """The session has no such process and never had one."""

    code = "process_not_found"

    def __init__(self, process_id: str) -> None:
        super().__init__("This session has no process with this id.", processId=process_id)


class ServiceNotFound(BuntimeError):
    """The session declares no such service."""

    code = "service_not_found"

    def __init__(self, name: str) -> None:
        super().__init__("This session has no service with this name.", name=name)


class ContextNotFound(BuntimeError):
    """The session never had such a context, or it was deleted."""

    code = "context_not_found"

    def __init__(self, context_id: str) -> None:
        super().__init__("This session has no context with this id.", contextId=context_id)


class ContextLost(BuntimeError):
    """The context lost its variables. `details.reason` says why, if that is known."""

    code = "context_lost"

    def __init__(self, context_id: str, reason: str = "runtime_ended") -> None:
        why = {
            "deep_sleep": "the session was in deep sleep",
            "timeout": "a run had to be killed at its timeout",
            "killed": "its process was killed",
            "exited": "its program ended itself",
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


class KeyNotFound(BuntimeError):
    """The key does not exist, is revoked or expired, or belongs to another account."""

    code = "key_not_found"

    def __init__(self, key_id: str) -> None:
        super().__init__("No key with this id. It may have been revoked, or have expired.", keyId=key_id)


class WebhookNotFound(BuntimeError):
    """The webhook does not exist, or belongs to another account."""

    code = "webhook_not_found"

    def __init__(self, webhook_id: str) -> None:
        super().__init__("No webhook with this id.", webhookId=webhook_id)


class DeliveryNotFound(BuntimeError):
    """The webhook has no such delivery. Deliveries go with their events, after 30 days."""

    code = "delivery_not_found"

    def __init__(self, delivery_id: str) -> None:
        super().__init__("This webhook has no delivery with this id.", deliveryId=delivery_id)


class ImageNotFound(BuntimeError):
    """The account can use no image of this name."""

    code = "image_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"There is no image {name!r}. List the images with GET /images.", image=name)


class SnapshotNotFound(BuntimeError):
    """The snapshot does not exist, has expired, was deleted, or belongs to another account."""

    code = "snapshot_not_found"

    def __init__(self, snapshot_id: str) -> None:
        super().__init__("No snapshot with this id. It may have expired or been deleted.", snapshotId=snapshot_id)


class RangeNotSatisfiable(BuntimeError):
    """The file has nothing in the requested range. `details.size` is the file's size in bytes."""

    code = "range_not_satisfiable"

    def __init__(self, path: str, size: int) -> None:
        super().__init__(f"{path!r} has {size} bytes: nothing of that range.", path=path, size=size)


_DELETED = {"contexts", "images", "keys", "snapshots"}  # resources that stay until a client deletes them; others end


class ResourceLimitExceeded(BuntimeError):
    """The plan allows no more at a time. `details`: `resource`, `limit`, `scope` (session or account), `plan`."""

    code = "resource_limit_exceeded"
    retryable = True

    def __init__(self, resource: str, limit: int, scope: str, plan: str) -> None:
        way_out = "Delete" if resource in _DELETED else "End"
        super().__init__(
            f"The {plan} plan allows {limit} {resource} at a time in one {scope}. {way_out} one first.",
            resource=resource,
            limit=limit,
            scope=scope,
            plan=plan,
        )


class StorageLimitExceeded(ResourceLimitExceeded):
    """What the account's snapshots and images alone keep would be more than the plan allows. `details` has `usedBytes`
    too."""

    def __init__(self, limit_gb: int, used: int, plan: str) -> None:
        super().__init__("snapshot_gb", limit_gb, "account", plan)
        self.message = (
            f"The {plan} plan allows {limit_gb} GB that snapshots and images alone keep. Delete some of them first."
        )
        self.details["usedBytes"] = used


class ExecutionTimeout(BuntimeError):
    """The request took too long. A program that takes too long is not an error, but a result."""

    code = "execution_timeout"
    retryable = True


class IdempotencyInProgress(BuntimeError):
    """The first request with this key is still running."""

    code = "idempotency_in_progress"
    retryable = True


class OutcomeUnknown(BuntimeError):
    """The first request with this key failed in the middle, or its host was lost. The key is used up: it is never run
    again."""

    code = "outcome_unknown"

    def __init__(self) -> None:
        super().__init__(
            "The first request with this Idempotency-Key did not end. It may have done all of its work, some or "
            "nothing. Look what is there before you ask again with another key."
        )


class IdempotencyKeyReused(BuntimeError):
    """The key was used for a different request."""

    code = "idempotency_key_reused"


class SessionBusy(BuntimeError):
    """Another operation that is under way rules this one out."""

    code = "session_busy"
    retryable = True


class InvalidState(BuntimeError):
    """The session's state rules the operation out."""

    code = "invalid_state"


class PayloadTooLarge(BuntimeError):
    """A file, body or output is over the limit. `details.limit` is in bytes."""

    code = "payload_too_large"


class RateLimitExceeded(BuntimeError):
    """Too many requests in this minute. `details.retryAfter` is in seconds."""

    code = "rate_limit_exceeded"
    retryable = True


class SessionLimitExceeded(BuntimeError):
    """The account has as many sessions as its plan allows."""

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
    """The session has as many valid preview tokens as is allowed."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"This session has {limit} valid preview tokens, the most it may have. Revoke some, or use a shorter ttl.",
            limit=limit,
        )


class SessionDamaged(InvalidState):
    """The session's files cannot be brought back, now or later. `details.reason` says why."""


class FilesLost(SessionDamaged):
    """The session's volume is lost, and requests do not go on from an older state by themselves."""

    def __init__(self, age: int | None) -> None:
        """`age`: seconds since the newest state was taken that the archive has. None: it has none."""
        message, details = "The session's files are not on this host any more", {"recoverable": age is not None}
        if age is None:
            super().__init__(f"{message}, and the archive has no copy of them.", reason="volume_lost", **details)
        else:
            super().__init__(
                f"{message}. The archive has them as they were {age} seconds ago. To continue from there, and give up "
                "what changed since, send POST /sessions/{sessionId}/recover.",
                reason="volume_lost",
                **details,
                ageSeconds=age,
            )


class NotLost(InvalidState):
    """There is nothing to recover."""

    def __init__(self) -> None:
        super().__init__("The session's files are not lost: there is nothing to recover.", reason="not_lost")


class SnapshotDamaged(InvalidState):
    """The snapshot's or image's files cannot be brought back, now or later."""

    def __init__(self) -> None:
        super().__init__(
            "The files cannot be brought back: this host does not have them, and no copy of them is whole.",
            reason="snapshot_damaged",
        )


class MemoryLimitExceeded(BuntimeError):
    """The kernel killed a process of the run because the session had used up its memory."""

    code = "memory_limit_exceeded"


class DiskFull(BuntimeError):
    """The session's disk limit is reached."""

    code = "disk_full"


class Unavailable(BuntimeError):
    """The server cannot do it now. `details`: `retryAfter` (s), and `restoredBytes`, `totalBytes` during a restore."""

    code = "unavailable"
    retryable = True

    def __init__(self, message: str, retry_after: int = 5, **details: object) -> None:
        super().__init__(message, retryAfter=retry_after, **details)


class Crowded(Unavailable):
    """Others wait for the sandboxes that this host starts next. To free memory or files would not help."""


class CommitUnknown(Unavailable):
    """The store was lost during a commit: what was to be stored may be there or not. It must not be undone."""


class HostFull(Unavailable):
    """This host has no room for one more session. It has done nothing for it, so another host may be asked."""

    def __init__(self, refusal: Unavailable) -> None:
        BuntimeError.__init__(self, refusal.message, **refusal.details)


class OnAnotherHost(HostFull):
    """The files are on another host alone, which has not archived them yet. That one can do what this one cannot."""

    def __init__(self) -> None:
        super().__init__(Unavailable("Another host has these files, and has not archived them yet.", 5))


class StillWaking(Unavailable):
    """A wake takes longer than a request waits for it. The wake goes on; the request did nothing.

    While files come from the archive, `details.reason` is `restoring`, and `restoredBytes` of `totalBytes` were read.
    """

    def __init__(self, retry_after: int = 1, **progress: object) -> None:
        super().__init__("The session is still waking.", retry_after, waking=True, **progress)


class StillFetching(Unavailable):
    """Files come from the archive, which takes longer than a request waits. It goes on; the request did nothing.

    `details` are those of StillWaking.
    """

    def __init__(self, retry_after: int = 2, **progress: object) -> None:
        super().__init__("The files are still being fetched from the archive.", retry_after, fetching=True, **progress)


class MayNotAct(Unavailable):
    """This host of a fleet has no lease. Another one may have its sessions."""

    def __init__(self) -> None:
        super().__init__("This host may not act right now. Try again shortly.", 1)


class NotOwner(Unavailable):
    """Another host has the session, or this one has claimed it again. What this host does with it must stop."""

    def __init__(self, session_id: str) -> None:
        super().__init__("The session has just moved to another host. Try again.", 1)
        self.session_id = session_id


class StaleSession(Exception):
    """A change expected another version of the session than the stored one. Never shown."""
