"""The server's commands, which buntime_cli adds to its own: see the entry point in pyproject.toml. Each imports what it
needs when it runs, so that all of them start quickly.
"""

import os
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from buntime.admin.refusals import ServerCommand
from buntime.config import Config, from_environment

STORE_COMMANDS = {
    "accounts": "accounts",
    "keys": "keys",
    "images": "images",
    "hosts": "hosts",
    "webhooks": "webhooks",
    "store": "moving",
}  # → module of buntime.admin

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


class Commands(TyperGroup):
    """Imports the commands that change the store only when they are used: the others need nothing of the server."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *STORE_COMMANDS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in STORE_COMMANDS:
            found = typer.main.get_command(
                getattr(import_module(f"buntime.admin.{STORE_COMMANDS[cmd_name]}"), cmd_name)
            )
            found.name = cmd_name
            return found
        return super().get_command(ctx, cmd_name)


app = typer.Typer(cls=Commands, rich_markup_mode=None)


@app.command("serve", cls=ServerCommand)
def serve_command() -> None:
    """Run the server until it is stopped. Sessions outlive it.

    Example: BUNTIME_PORT=8000 buntime serve
    """
    from buntime.starting import serve

    serve()


@app.command("doctor", cls=ServerCommand)
def doctor_command(as_json: AsJson = False) -> None:
    """Check this host, and list what buntime changes on it.

    Example: buntime doctor
    """
    from buntime.admin import doctor

    config = from_environment(os.environ)
    raise typer.Exit(_report(config) if as_json else doctor.report(config))


@app.command("purge", cls=ServerCommand)
def purge_command(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove every session and all that the server made on this host.

    Example: buntime purge --yes
    """
    from buntime.admin.purging import purge

    config = from_environment(os.environ)
    if not yes:
        typer.confirm(f"Remove everything that the server in {config.data_dir} created?", abort=True, err=True)
    purge(config)
    if as_json:
        _print_json({"purged": True, "dataDir": str(config.data_dir)})


@app.command("watchdog", cls=ServerCommand, hidden=True)  # until a server can be a member of a fleet
def watchdog_command() -> None:
    """Fence this host when its server shows no renewal. A server of a fleet starts it.

    Example: buntime watchdog
    """
    from buntime.admin.watchdog import run

    run(from_environment(os.environ))


@app.command("backup", cls=ServerCommand)
def backup_command(
    directory: Annotated[Path, typer.Argument(metavar="DIRECTORY", help="The directory to create.")],
    as_json: AsJson = False,
) -> None:
    """Copy the store and the master key. The server can keep running.

    Example: buntime backup /srv/backup/today
    """
    from buntime.admin.backup import back_up

    config = from_environment(os.environ)
    back_up(config, directory)
    if as_json:
        _print_json({"directory": str(directory)})
        return
    typer.echo(
        f"{directory} has the store and the master key. See docs/lifecycle.md, Backup, for the rest of a backup."
    )


def _report(config: Config) -> int:
    """Like `doctor.report`, for programs."""
    from dataclasses import asdict

    from buntime.admin import doctor

    found = doctor.findings(config)
    ok = all(finding.ok or not finding.needed for finding in found)
    told = {
        "ok": ok,
        "findings": [asdict(finding) for finding in found],
        "settings": [asdict(setting) for setting in doctor.settings(config)],
        "changes": doctor.changes(config),
    }
    _print_json(told)
    return 0 if ok else 1


def _print_json(told: object) -> None:
    import json

    typer.echo(json.dumps(told))
