"""The start of the command `buntime`."""

import sys

from buntime_cli.extras import how_to_install


def main() -> None:
    """Exits with 0, 1 after an error (one line on stderr), 2 for wrong usage, or the program's status."""
    try:
        from buntime_cli.app import app
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        print(f"buntime: {how_to_install('cli')}", file=sys.stderr)
        sys.exit(1)
    app()
