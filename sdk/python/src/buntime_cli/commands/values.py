"""Parses values on the command line: moments, sizes, NAME=VALUE, files of services."""

import json
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import typer

from buntime_cli.time_spans import SPAN, seconds

SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(?:(m|g)(?:i?b)?)?", re.IGNORECASE)
MEGABYTES = {"": 1, "m": 1, "g": 1024}


def megabytes(text: str, option: str) -> int:
    """`512`, `512m`, `512MB`, `1g`, `1gb` or `1GiB`, in MB of 2^20 bytes. Raises BadParameter."""
    match = SIZE.fullmatch(text.strip())
    size = float(match[1]) * MEGABYTES[(match[2] or "").lower()] if match else 0.5
    if not size.is_integer():
        raise typer.BadParameter(
            f"{text!r} is not a size in whole megabytes. Write 512, 512m, 2g or 2GiB.", param_hint=f"'{option}'"
        )
    return int(size)


def moment(text: str, now: datetime) -> datetime:
    """A span of time before `now`, such as `10m`, or a time such as `2026-01-19T10:30:00Z`. Without a zone it is local.

    Raises BadParameter.
    """
    if SPAN.fullmatch(text):
        return now - timedelta(seconds=seconds(text))
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        wrong = f"{text!r} is not a time. Write a span, such as 10m, or a time, such as 2026-01-19T10:30:00Z."
        raise typer.BadParameter(wrong) from None


def pairs(texts: Sequence[str] | None) -> dict[str, str]:
    """Parses NAME=VALUE options. Raises BadParameter."""
    found = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE.")
        found[name] = value
    return found


def read_services(file: Path | None) -> list[dict[str, Any]] | None:
    """The services in a file of JSON, as the SDK takes them. None without a file. Raises BadParameter."""
    if file is None:
        return None
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as wrong:
        raise typer.BadParameter(f"{file}: {wrong}", param_hint="--services") from None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise typer.BadParameter(f"{file} must have an array of objects.", param_hint="--services")
    return found
