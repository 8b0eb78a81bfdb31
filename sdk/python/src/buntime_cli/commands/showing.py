"""Prints answers: tables and times for people, the API's JSON for programs."""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from buntime_sdk import Session

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
FINE = 10  # of a unit say enough
NEVER_SHOWN = "�"  # replaces control characters
COLOURS = {"active": "green", "running": "green", "idle": "yellow", "deep-sleep": "blue", "lost": "red"}


def print_json(value: object) -> None:
    print(json.dumps(wire(value), ensure_ascii=False), flush=True)


def wire(value: object) -> object:
    """The value as in the API: names in camelCase, times with `Z`. Keys of mappings are user data and do not change."""
    if is_dataclass(value) and not isinstance(value, type):
        shown = [field.name for field in fields(value) if not field.name.startswith("_")]
        return {camel(name): wire(getattr(value, name)) for name in shown}
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): wire(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [wire(item) for item in value]
    return value


def told(thing: object, id_name: str, *names: str) -> dict[str, object]:
    """The fields that a session or process object already knows. Fields that need a request are left out."""
    shown: dict[str, object] = {id_name: thing.id}  # type: ignore[attr-defined]
    for name in names:
        with suppress(LookupError):
            shown[camel(name)] = wire(getattr(thing, name))
    return shown


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def plain(text: str) -> str:
    """The text without control characters: programs in sessions choose names and commands freely."""
    return "".join(character if character.isprintable() else NEVER_SHOWN for character in text)


def span(seconds: float) -> str:
    """Rounded, in two units where one would be coarse: `3 h 59 min`, `23 h`, `40 s`."""
    seconds = max(0.0, seconds)
    for unit, length, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        whole, rest = divmod(round(seconds / part) * part, length)
        if whole >= FINE:
            return f"{round(seconds / length)} {unit}"
        if whole:
            return f"{whole} {unit} {rest // part} {smaller}" if rest else f"{whole} {unit}"
    return f"{round(seconds)} s"


def until(time: datetime | None, now: datetime) -> str:
    """`never` if there is no such time."""
    if time is None:
        return "never"
    return f"in {span((time - now).total_seconds())}" if time > now else "now"


def since(time: datetime, now: datetime) -> str:
    return f"{span((now - time).total_seconds())} ago"


def size(count: float) -> str:
    """A number of bytes: `12.5 MiB`."""
    for unit in UNITS[:-1]:
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} {UNITS[-1]}"


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """On a terminal, prints colours and cuts lines to its width; otherwise whole lines, for `awk`. The longest column
    comes last."""
    lines = [list(head), *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    if sys.stdout.isatty():
        _print_rich(padded)
        return
    for line in padded:
        print("  ".join(line).rstrip())


def _print_rich(lines: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for number, line in enumerate(lines):
        shown = Text("  ").join(Text(cell, style=COLOURS.get(cell.split(" ")[0], "")) for cell in line)
        shown.rstrip()
        shown.truncate(console.width, overflow="ellipsis")
        if number == 0:
            shown.stylize("bold")
        console.print(shown, soft_wrap=True)


def live_processes(session: "Session") -> int:
    """The API goes on showing what deep sleep has ended."""
    return 0 if session.state == "deep-sleep" else session.active_processes
