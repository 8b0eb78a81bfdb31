"""Paths inside a session, as text. The host never resolves one."""

import posixpath

from buntime.errors import InvalidRequest

WORKSPACE = "/workspace"
RECORDS = "/var/lib/buntime"  # what the guest notes of processes and contexts, with their logs
ON_WAKE_LOG = "/var/log/on-wake.log"  # what a session's onWake command prints
LONGEST_PATH = 4095  # bytes, as on Linux
LONGEST_NAME = 255


def inside_session(path: str, field: str = "path", *, any_bytes: bool = False) -> str:
    """The path in absolute, normalised form. A relative path starts at /workspace.

    Resolves `..` as text, and never above `/`, the session's own root. `any_bytes`: surrogates (`surrogateescape`)
    stand for bytes that are not UTF-8. Raises InvalidRequest, which names `field`, for a path that is empty, too long,
    or has a NUL character.
    """
    if path == WORKSPACE:  # most often
        return path
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


def file_inside_session(path: str, field: str = "path", *, any_bytes: bool = False) -> str:
    """The same for a file to write. Raises InvalidRequest as well for a path that ends with a slash, which names a
    directory."""
    if path.endswith("/"):
        raise InvalidRequest(field, f"{field} must not end with a slash: it names a file.")
    return inside_session(path, field, any_bytes=any_bytes)


def in_bytes(path: str) -> bytes:
    """The path as the session's kernel has it. Raises UnicodeEncodeError for a surrogate that stands for no byte."""
    return path.encode(errors="surrogateescape")


def from_bytes(path: bytes) -> str:
    return path.decode(errors="surrogateescape")


def shown(path: str) -> str:
    """The path for people: U+FFFD replaces what is not UTF-8."""
    return in_bytes(path).decode(errors="replace")


def for_client(path: str) -> str:
    """An absolute path as clients see it: relative to /workspace if it is below that."""
    if path == WORKSPACE:
        return "."
    return path.removeprefix(WORKSPACE + "/")
