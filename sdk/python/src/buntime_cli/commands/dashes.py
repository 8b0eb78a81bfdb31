"""`--` in a command line. The words after it are another command, so they are kept apart."""

import re
import shlex
from typing import Any

from typer.core import TyperCommand

from buntime_cli.commands.usage_errors import UsageError

AFTER_DASHES = "buntime.after_dashes"
PROGRAM = re.compile(r"[A-Za-z./][\w./+-]*")  # as code it would do nothing, so a command is meant


class CommandAfterDashes(TyperCommand):
    """`context.meta[AFTER_DASHES]` has the words after the first `--`. Without `--` it is missing."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--" in args:
            dashes = args.index("--")
            ctx.meta[AFTER_DASHES] = args[dashes + 1 :]
            return super().parse_args(ctx, args[:dashes])
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except UsageError as wrong:
            if looks_like_a_command(given):
                raise UsageError(with_dashes(ctx.command_path, given), ctx) from wrong
            raise


def looks_like_a_command(words: list[str]) -> bool:
    """Whether the words are a session and then a command without `--`, such as `demo ls -la`."""
    return len(words) > 1 and not words[0].startswith("-") and PROGRAM.fullmatch(words[1]) is not None


def with_dashes(command: str, words: list[str]) -> str:
    session, *line = words
    return f"A command goes after `--`. Write: {command} {session} -- {shlex.join(line)}"
