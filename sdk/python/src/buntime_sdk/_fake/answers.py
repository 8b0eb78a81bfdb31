"""The fake's responses and errors, in the server's shapes."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeAlias

from buntime_sdk.errors import BuntimeError

STATUSES = {
    "invalid_request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "session_not_found": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "file_not_found": 404,
    "file_conflict": 409,
    "process_not_found": 404,
    "service_not_found": 404,
    "context_not_found": 404,
    "image_not_found": 404,
    "key_not_found": 404,
    "webhook_not_found": 404,
    "delivery_not_found": 404,
    "snapshot_not_found": 404,
    "context_lost": 409,
    "terminal_not_found": 404,
    "range_not_satisfiable": 416,
    "resource_limit_exceeded": 429,
    "execution_timeout": 408,
    "idempotency_in_progress": 409,
    "outcome_unknown": 409,
    "idempotency_key_reused": 422,
    "name_taken": 409,
    "session_busy": 409,
    "invalid_state": 409,
    "payload_too_large": 413,
    "rate_limit_exceeded": 429,
    "session_limit_exceeded": 429,
    "memory_limit_exceeded": 507,
    "disk_full": 507,
    "internal_error": 500,
    "unavailable": 503,
}
RETRYABLE = frozenset(
    {
        "resource_limit_exceeded",
        "execution_timeout",
        "idempotency_in_progress",
        "session_busy",
        "rate_limit_exceeded",
        "session_limit_exceeded",
        "unavailable",
    }
)

# Parts of a body; None: nothing has arrived yet.
Parts: TypeAlias = Iterator[bytes | None]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    parts: Iterable[bytes | None]
    headers: Mapping[str, str] = field(default_factory=dict)


def refuse(code: str, message: str, **details: object) -> NoReturn:
    raise BuntimeError.codes[code](message, code=code, details=details)


def scripted(failure: BuntimeError | str) -> BuntimeError:
    """Returns the error itself, or the one with this code. Raises ValueError for a code that the
    server does not have.
    """
    if isinstance(failure, BuntimeError):
        return failure
    if failure not in STATUSES:
        raise ValueError(f"The server has no error with the code {failure!r}.")
    return BuntimeError.codes.get(failure, BuntimeError)(f"Scripted: {failure}.", code=failure)


def error_object(failure: BuntimeError) -> dict[str, Any]:
    return {
        "code": failure.code,
        "retryable": failure.retryable or failure.code in RETRYABLE,
        "message": failure.message,
        "details": dict(failure.details),
    }


def failed(failure: BuntimeError) -> Answer:
    headers = {"x-request-id": failure.request_id or "fake"}
    if failure.retry_after is not None:
        headers["retry-after"] = f"{failure.retry_after:g}"
    status = failure.status or STATUSES.get(failure.code, 500)
    return whole(status, {"error": error_object(failure)}, headers)


def whole(status: int, body: object, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, [json.dumps(body).encode()], {"content-type": "application/json", **(headers or {})})


def raw(content: bytes, kind: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(status, [content], {"content-type": kind, "content-length": str(len(content)), **(headers or {})})


def events(parts: Parts) -> Answer:
    return Answer(200, parts, {"content-type": "text/event-stream"})


def event(name: str, told: object, cursor: int | str | None = None) -> bytes:
    """Encodes a Server-Sent Event."""
    head = f"event: {name}\n" if cursor is None else f"event: {name}\nid: {cursor}\n"
    return f"{head}data: {json.dumps(told)}\n\n".encode()
