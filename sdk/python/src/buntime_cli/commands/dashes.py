"""`--` in a command line. The words after it are another command, so they are kept apart."""

from typing import Any

from typer.core import TyperCommand

AFTER_DASHES = "buntime.after_dashes"


class CommandAfterDashes(TyperCommand):
    """`context.meta[AFTER_DASHES]` has the words after the first `--`. Without `--` it is missing."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--" in args:
            dashes = args.index("--")
            ctx.meta[AFTER_DASHES] = args[dashes + 1 :]
            args = args[:dashes]
        return super().parse_args(ctx, args)
