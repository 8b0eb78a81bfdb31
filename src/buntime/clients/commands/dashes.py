"""`--` in a command line: what follows is kept apart, since it is somebody else's command."""

from typing import Any

from typer.core import TyperCommand

AFTER_DASHES = "buntime.after_dashes"


class CommandAfterDashes(TyperCommand):
    """`context.meta[AFTER_DASHES]` has the words after the first `--`, and is missing where there is none."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--" in args:
            place = args.index("--")
            ctx.meta[AFTER_DASHES] = args[place + 1 :]
            args = args[:place]
        return super().parse_args(ctx, args)
