"""Help in plain words: examples that can be pasted, and names in place of Python's types."""

import re
from collections.abc import Sequence
from typing import Any

import typer

EXAMPLES = re.compile(r"Examples?: ")
BETWEEN = re.compile(r" {4,}")  # separates examples on one line of a docstring
TYPE = re.compile(r" <(?:list\[)?([^\[\]>]+)\]?>")
PLAIN_TYPES = {"str": "TEXT", "int": "NUMBER", "float": "NUMBER", "path": "PATH", "file": "FILE"}
Formatter: Any = typer.Context.formatter_class


class PlainFormatter(Formatter):  # type: ignore[misc]
    """Leaves the lines of examples whole: a line break in a command would end it."""

    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        named = re.sub(r"\{([^}]*)\}", r"\1", args)  # required arguments are in braces
        super().write_usage(prog, named.replace("…]...", "…]"), prefix)

    def write_text(self, text: str) -> None:
        before, found, after = text.rpartition("\n\n")
        if not (examples := EXAMPLES.match(after)):
            super().write_text(text)
            return
        if found:
            super().write_text(before)
            self.write_paragraph()
        indent = " " * self.current_indent
        lines = BETWEEN.split(" ".join(after[examples.end() :].split("\n")))
        self.write(f"{indent}Example{'s' if len(lines) > 1 else ''}:\n")
        self.write("".join(f"{indent}  {line.strip()}\n" for line in lines))

    def write_dl(self, rows: Sequence[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        super().write_dl([(_without_types(name), text) for name, text in rows], col_max, col_spacing)


class PlainContext(typer.Context):
    formatter_class = PlainFormatter


def plainly_helped(command: Any) -> Any:
    """The same command, whose help and whose subcommands' help is plain."""
    command.context_class = PlainContext
    for one in getattr(command, "commands", {}).values():
        plainly_helped(one)
    return command


def _without_types(name: str) -> str:
    """`--ttl <str>` becomes `--ttl TEXT`. An argument has its own name already."""
    if not name.startswith("-"):
        return TYPE.sub("", name)
    return TYPE.sub(lambda found: f" {PLAIN_TYPES.get(found[1], found[1])}", name)
