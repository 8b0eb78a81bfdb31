"""The command line. Each command imports what it needs itself, so that all of them start quickly."""

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from buntime.clients.commands import copying, previews, processes, running, sessions, shell, usage
from buntime.clients.commands.options import AsJson
from buntime.clients.mcp.command import mcp_command
from buntime.config import BadSetting, Config, from_environment

STORE_COMMANDS = ("accounts", "keys")


class Commands(TyperGroup):
    """Imports the commands that change the store only when they are used: the others need nothing of the server."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *STORE_COMMANDS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in STORE_COMMANDS:
            found = typer.main.get_command(getattr(import_module("buntime.admin.accounts"), cmd_name))
            found.name = cmd_name
            return found
        return super().get_command(ctx, cmd_name)


app = typer.Typer(
    name="buntime",
    cls=Commands,
    help="Isolated Bun sessions for AI agents, on your own machine. BUNTIME_* variables configure the server. Commands "
    "that talk to a server use BUNTIME_URL and BUNTIME_API_KEY.",
    no_args_is_help=True,
    rich_markup_mode=None,  # importing rich takes as long as everything else together
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
server = typer.Typer()


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(version("buntime"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options before the command."""


@server.command("completion")
def completion_command(shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument()]) -> None:
    """Print the completion script for a shell.

    For bash, add this to ~/.bashrc: eval "$(buntime completion bash)". --install-completion does the same for the
    current shell.
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    typer.echo(get_completion_script(prog_name="buntime", complete_var="_BUNTIME_COMPLETE", shell=shell))


@server.command("serve")
def serve_command() -> None:
    """Run the server until it is stopped. Sessions outlive it."""
    from buntime.main import serve

    serve(from_environment(os.environ))


@server.command("doctor")
def doctor_command(as_json: AsJson = False) -> None:
    """Check this host, and list what buntime changes on it."""
    from buntime.admin import doctor

    config = from_environment(os.environ)
    raise typer.Exit(_report(config) if as_json else doctor.report(config))


@server.command("purge")
def purge_command(
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove every session and everything that the server created on this host."""
    from buntime.admin.purging import purge

    config = from_environment(os.environ)
    if not yes:
        typer.confirm(f"Remove everything that the server in {config.data_dir} created?", abort=True, err=True)
    purge(config)
    if as_json:
        _print_json({"purged": True, "dataDir": str(config.data_dir)})


@server.command("backup")
def backup_command(
    directory: Annotated[Path, typer.Argument(help="The directory to create.")], as_json: AsJson = False
) -> None:
    """Copy the store and the master key. The server can keep running."""
    from buntime.admin.backup import back_up

    config = from_environment(os.environ)
    back_up(config, directory)
    if as_json:
        _print_json({"directory": str(directory)})
        return
    typer.echo(
        f"{directory} has the store and the master key. See docs/lifecycle.md, Backup, for the rest of a backup."
    )


server.command("mcp")(mcp_command)


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


def _refusals() -> tuple[type[Exception], ...]:
    """Looked up only after an exception: if one of these was raised, its module is already imported."""
    module = sys.modules.get("buntime.admin.accounts")
    return (BadSetting,) if module is None else (BadSetting, module.CommandRefused)


for commands in (
    *(sessions.sessions, running.running, shell.shell, copying.copying),
    *(processes.processes, previews.previews, usage.usage, server),
):
    app.add_typer(commands)


def main() -> None:
    """Exits with 0, 1 after an error (one line on stderr), 2 for wrong usage, or the program's status."""
    try:
        app()
    except _refusals() as refusal:
        typer.echo(f"buntime: {refusal}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
