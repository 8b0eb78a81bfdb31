"""Which part of a file a request asks for (RFC 9110, sections 13 and 14)."""

import re
from collections.abc import Callable, Sequence
from email.utils import formatdate, parsedate_to_datetime

ONE_RANGE = re.compile(rb"bytes=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.IGNORECASE)

type Part = tuple[int | None, int | None]  # as in `inside.Files.read`
WHOLE: Part = (None, None)


def asked_part(header: Callable[[bytes], Sequence[bytes]]) -> Part:
    """WHOLE without `Range`, and for ranges that must be ignored: several ranges, other units, malformed ones."""
    values = header(b"range")
    found = ONE_RANGE.fullmatch(values[0]) if len(values) == 1 else None
    if found is None:
        return WHOLE
    first, last = found[1], found[2]
    if not first:
        return (None, int(last)) if last else WHOLE
    if not last:
        return int(first), None
    return (int(first), int(last) + 1) if int(first) <= int(last) else WHOLE


def etag(version: str) -> bytes:
    return b'"%s"' % version.encode()


def http_date(seconds: int) -> bytes:
    return formatdate(seconds, usegmt=True).encode()


def is_known(header: Callable[[bytes], Sequence[bytes]], version: str, modified: int) -> bool:
    """Whether the client already has this version, so that the answer is 304."""
    if tags := header(b"if-none-match"):
        known = [tag.strip().removeprefix(b"W/") for value in tags for tag in value.split(b",")]
        return b"*" in known or etag(version) in known
    since = [_seconds(value) for value in header(b"if-modified-since")]
    return len(since) == 1 and since[0] is not None and modified <= since[0]


def is_same(header: Callable[[bytes], Sequence[bytes]], version: str) -> bool:
    """Whether `If-Range`, if present, allows a partial answer. A date is not exact enough."""
    values = header(b"if-range")
    return not values or values == [etag(version)]


def _seconds(value: bytes) -> float | None:
    try:
        return parsedate_to_datetime(value.decode("ascii")).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
