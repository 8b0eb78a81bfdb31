"""Paths inside a session, as clients write them. Pure text: the host never resolves one."""

import posixpath

from buntime.errors import InvalidRequest

WORKSPACE = "/workspace"
LONGEST_PATH = 4095  # bytes, as Linux has it
LONGEST_NAME = 255


def inside_session(path: str, field: str = "path") -> str:
    """The absolute, normalised form; relative ones start at /workspace.

    `..` is resolved as text and never climbs above `/` (which is the session's own root).
    Raises InvalidRequest for empty, over-long and NUL-bearing paths.
    """
    if not path:
        raise InvalidRequest(field, f"{field} must not be empty.")
    if "\0" in path:
        raise InvalidRequest(field, f"{field} must not contain a NUL character.")
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(field, f"{field} must be valid Unicode text.") from None
    whole = posixpath.normpath(posixpath.join(WORKSPACE, path))
    whole = "/" + whole.lstrip("/")
    if len(encoded) > LONGEST_PATH or len(whole.encode()) > LONGEST_PATH:
        raise InvalidRequest(field, f"{field} is longer than {LONGEST_PATH} bytes.")
    if any(len(name.encode()) > LONGEST_NAME for name in whole.split("/")):
        raise InvalidRequest(field, f"{field} has a name longer than {LONGEST_NAME} bytes.")
    return whole


def for_client(path: str) -> str:
    """An absolute path inside the session as clients see it: relative where it is under /workspace."""
    if path == WORKSPACE:
        return "."
    return path.removeprefix(WORKSPACE + "/")
