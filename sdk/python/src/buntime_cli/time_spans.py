"""Spans of time on the command line."""

import re

import typer

SPAN = re.compile(r"(\d+)([smhd]?)")
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> int:
    """`90`, `90s`, `30m`, `24h` or `7d`. Raises BadParameter."""
    match = SPAN.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a span of time. Write 90, 90s, 30m, 24h or 7d.")
    return int(match[1]) * SECONDS[match[2]]
