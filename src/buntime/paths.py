"""Paths inside a session, as clients write them. Pure text: the host never resolves one."""

import posixpath

from buntime.errors import InvalidRequest

WORKSPACE = "/workspace"
ON_WAKE_LOG = "/var/log/on-wake.log"  # what a session's onWake command prints
LONGEST_PATH = 4095  # bytes, as Linux has it
LONGEST_NAME = 255


def inside_session(path: str, field: str = "path", *, any_bytes: bool = False) -> str:
    """The absolute, normalised form; relative ones start at /workspace.

    `..` is resolved as text and never climbs above `/` (which is the session's own root).
    `any_bytes`: surrogates (`surrogateescape`) stand for bytes that are not UTF-8. Raises InvalidRequest for empty,
    over-long and NUL-bearing paths.
    """
    if not path:
        raise InvalidRequest(field, f"{field} must not be empty.")
    if "\0" in path:
        raise InvalidRequest(field, f"{field} must not contain a NUL character.")
    try:
        encoded = in_bytes(path) if any_bytes else path.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(field, f"{field} must be valid Unicode text.") from None
    whole = posixpath.normpath(posixpath.join(WORKSPACE, path))
    whole = "/" + whole.lstrip("/")
    if len(encoded) > LONGEST_PATH or len(in_bytes(whole)) > LONGEST_PATH:
        raise InvalidRequest(field, f"{field} is longer than {LONGEST_PATH} bytes.")
    if any(len(in_bytes(name)) > LONGEST_NAME for name in whole.split("/")):
        raise InvalidRequest(field, f"{field} has a name longer than {LONGEST_NAME} bytes.")
    return whole


def in_bytes(path: str) -> bytes:
    """As the session's kernel has it. Raises UnicodeEncodeError for text that is neither UTF-8 nor stands for bytes."""
    return path.encode(errors="surrogateescape")


def from_bytes(path: bytes) -> str:
    return path.decode(errors="surrogateescape")


def shown(path: str) -> str:
    """For people: U+FFFD where it is not UTF-8."""
    return in_bytes(path).decode(errors="replace")


def for_client(path: str) -> str:
    """An absolute path inside the session as clients see it: relative where it is under /workspace."""
    if path == WORKSPACE:
        return "."
    return path.removeprefix(WORKSPACE + "/")
