"""The base classes of all JSON shapes, and how answers are encoded.

Requests are strict: an unknown field, a null where none is allowed and a number in quotes are all refused.
`/openapi.json` shows the descriptions and bounds of this package. `buntime.requests` checks the bounds that depend on
the caller's plan.
"""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Struct, UnsetType

LAST_SECOND = 253402300799  # 9999-12-31T23:59:59Z


_encoder = msgspec.json.Encoder()


class Request(Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """What a client sends."""


class Response(Struct, rename="camel", kw_only=True):
    """What a client gets."""


class NoQuery(Request):
    pass


class NoBody(Request):
    pass


def given[T](value: T | UnsetType) -> T | None:
    """None for a field that the client left out."""
    return None if isinstance(value, UnsetType) else value


@lru_cache(maxsize=4096)
def iso(seconds: int) -> str:
    """Unix seconds → `2024-01-19T10:30:00Z`. A time beyond the calendar's range becomes the end of that range."""
    return datetime.fromtimestamp(min(max(seconds, 0), LAST_SECOND), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def instant(milliseconds: int) -> str:
    """Unix milliseconds → `2024-01-19T10:30:00.000Z`. As with `iso`."""
    seconds, rest = divmod(milliseconds, 1000)
    return f"{iso(seconds)[:-1]}.{rest:03}Z"


def number(value: float) -> float:
    """Drops the fraction of a whole number, as a client would write it."""
    return int(value) if value == int(value) else value


def encode(answer: object) -> bytes:
    """Compact JSON. Invalid Unicode from inside a session becomes U+FFFD."""
    try:
        return msgspec.json.encode(answer)
    except UnicodeEncodeError:
        return msgspec.json.encode(_valid_text(msgspec.to_builtins(answer)))


def encode_after(beginning: bytes, answer: object) -> bytearray:
    """`beginning` and then compact JSON, which is not copied again. As with `encode`."""
    whole = bytearray(beginning)
    try:
        _encoder.encode_into(answer, whole, -1)
    except UnicodeEncodeError:
        whole = bytearray(beginning) + encode(answer)
    return whole


def _valid_text(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
        case list() | tuple():
            return [_valid_text(item) for item in value]
        case dict():
            return {_valid_text(key): _valid_text(item) for key, item in value.items()}
    return value
