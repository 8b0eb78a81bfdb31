"""Spans of time on the command line."""

import re
from typing import Final, Literal

import typer

SPAN = re.compile(r"(\d+)([smhd]?)")
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


NEVER: Final = "never"


def seconds_or_never(text: str) -> int | Literal["never"]:
    """The same as `seconds`, and `never`. Raises BadParameter."""
    return NEVER if text == NEVER else seconds(text, f", or {NEVER}")


def seconds(text: str, more: str = "") -> int:
    """`90`, `90s`, `30m`, `24h` or `7d`. Raises BadParameter."""
    match = SPAN.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a span of time. Write 90, 90s, 30m, 24h or 7d{more}.")
    return int(match[1]) * SECONDS[match[2]]
