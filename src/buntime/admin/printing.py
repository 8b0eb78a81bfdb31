"""What the server's commands print."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def say(word: str, told: Mapping[str, object], as_json: bool) -> None:
    typer.echo(json.dumps(told) if as_json else word)


def shown_time(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns of plain text, for people and for `awk`."""
    widths = [max(len(line[column]) for line in (head, *rows)) for column in range(len(head))]
    for line in (head, *rows):
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        typer.echo("  ".join(cells).rstrip())
