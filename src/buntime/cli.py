"""The command line. What a command needs is imported by the command, so that all of them start quickly."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from buntime import cli_accounts
from buntime.config import BadSetting, from_environment

app = typer.Typer(
    name="buntime",
    help="Isolated Bun sessions for AI agents, on your own machine. Settings are BUNTIME_* variables.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(cli_accounts.accounts, name="accounts")
app.add_typer(cli_accounts.keys, name="keys")


@app.command("serve")
def serve_command() -> None:
    """Run the server until it is stopped; sessions outlive it."""
    from buntime.main import serve

    serve(from_environment(os.environ))


@app.command("doctor")
def doctor_command() -> None:
    """Check this host and list every setting of it that buntime changes."""
    from buntime.doctor import report

    raise typer.Exit(report(from_environment(os.environ)))


@app.command("purge")
def purge_command(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove every session and all that the server made on this host."""
    from buntime.main import purge

    config = from_environment(os.environ)
    if not yes:
        typer.confirm(f"Remove everything of the server in {config.data_dir}?", abort=True, err=True)
    purge(config)


@app.command("backup")
def backup_command(directory: Annotated[Path, typer.Argument(help="Made by this command.")]) -> None:
    """Copy the store and the master key, while the server runs."""
    from buntime.backup import back_up

    config = from_environment(os.environ)
    back_up(config, directory)
    typer.echo(f"{directory} has the store and the master key. What belongs to it: docs/lifecycle.md, Backup.")


def main() -> None:
    """Exit status: 0, 1 for a refusal in one sentence on stderr, 2 for wrong usage."""
    try:
        app()
    except (BadSetting, cli_accounts.Refused) as refusal:
        typer.echo(f"buntime: {refusal}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
