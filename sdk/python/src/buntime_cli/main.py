"""The start of the command `buntime`."""

import sys
from importlib.metadata import entry_points

from buntime_cli.extras import how_to_install

DIRECT_COMMANDS = "buntime.direct"  # entry points: functions that are whole commands without options
DIRECT = ("serve",)  # of the server beside: its start does not wait for the libraries of a command line


def main() -> None:
    """Exits with 0, 1 after an error (one line on stderr), 2 for wrong usage, or the program's status."""
    if len(sys.argv) == 2 and sys.argv[1] in DIRECT:
        for one in entry_points(group=DIRECT_COMMANDS, name=sys.argv[1]):
            one.load()()
            return
    try:
        from buntime_cli.app import app
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in ("typer", "rich"):
            raise
        print(f"buntime: {how_to_install('cli')}", file=sys.stderr)
        sys.exit(1)
    app()
