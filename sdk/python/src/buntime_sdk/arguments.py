"""Checks what a caller gave, before a request is made of it. Pure."""

import math
import os
from os import PathLike
from pathlib import PurePath
from typing import TypeAlias, TypeVar

from buntime_sdk.errors import InvalidRequest

SessionPath: TypeAlias = str | PathLike[str]  # a path in a session
AnyPath = TypeVar("AnyPath", bound=SessionPath)  # of a mapping's keys, which a union does not infer
MOST_SECONDS = 10_000_000  # within what clocks and sockets count
LONGEST_KEY = 255


def refusal(field: str, message: str) -> InvalidRequest:
    """Returns the error that names the argument."""
    return InvalidRequest(message, code="invalid_request", details={"field": field})


def require_seconds(name: str, value: object, *, least: float | None = None) -> None:
    """Raises InvalidRequest unless the value is a number of seconds. `least`: more than 0 by default."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if is_number and (value > 0 if least is None else value >= least) and value <= MOST_SECONDS:  # type: ignore[operator]  # a number
        return
    lowest = "more than 0" if least is None else f"at least {least:g}"
    raise refusal(name, f"{name} must be {lowest} and at most {MOST_SECONDS:,} seconds, not {value!r}.")


def require_count(name: str, value: object) -> None:
    """Raises InvalidRequest unless the value is a whole number from 0."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise refusal(name, f"{name} must be a whole number from 0, not {value!r}.")


def require_id(name: str, value: object) -> None:
    """Raises InvalidRequest for an id that is empty or not text."""
    if not isinstance(value, str) or not value:
        raise refusal(name, f"{name} must be the text of an id, not {value!r}.")


def require_key(key: object) -> None:
    """Raises InvalidRequest for an idempotency key that cannot be sent. An HTTP client's own error would quote the key,
    which is secret.
    """
    is_text = isinstance(key, str) and key.isascii() and key.isprintable() and " " not in key
    if not is_text or not 0 < len(key) <= LONGEST_KEY:  # type: ignore[arg-type]  # text
        message = f"An idempotency key is 1 to {LONGEST_KEY} visible ASCII characters."
        raise refusal("Idempotency-Key", message)


def path_text(path: SessionPath, name: str = "path") -> str:
    """Returns a path of a session as text. Raises InvalidRequest for what is not a path."""
    try:
        text = path.as_posix() if isinstance(path, PurePath) else os.fspath(path)
    except TypeError:
        text = None
    if not isinstance(text, str):
        raise refusal(name, f"{name} must be a str or an os.PathLike, not {type(path).__name__}.")
    return text


def working_dir_text(path: SessionPath | None) -> str | None:
    return None if path is None else path_text(path, "working_dir")


def input_text(stdin: str | bytes | None) -> str | None:
    """Returns what a run reads from its standard input. Raises InvalidRequest for what is not text."""
    if not isinstance(stdin, bytes):
        if stdin is None or isinstance(stdin, str):
            return stdin
        raise refusal("stdin", f"stdin must be str or bytes, not {type(stdin).__name__}.")
    try:
        return stdin.decode()
    except UnicodeDecodeError as wrong:
        message = (
            f"stdin must be UTF-8: {wrong.reason} at byte {wrong.start}. Write other bytes to a file with `files`."
        )
        raise refusal("stdin", message) from None
