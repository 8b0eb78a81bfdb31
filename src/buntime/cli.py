"""The command line. What a command needs is imported by the command, so that all of them start quickly."""

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
    """Those that change the store are imported when they are asked for: the others need nothing of a server."""

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
    help="Isolated Bun sessions for AI agents, on your own machine. The server's settings are BUNTIME_* variables; "
    "commands that talk to a server take BUNTIME_URL and BUNTIME_API_KEY.",
    no_args_is_help=True,
    rich_markup_mode=None,  # its import takes as long as everything else together
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
    """What stands before a command."""


@server.command("completion")
def completion_command(shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument()]) -> None:
    """Print the script that completes commands in a shell.

    For bash, in ~/.bashrc: eval "$(buntime completion bash)". --install-completion does such a thing for the shell that
    runs.
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    typer.echo(get_completion_script(prog_name="buntime", complete_var="_BUNTIME_COMPLETE", shell=shell))


@server.command("serve")
def serve_command() -> None:
    """Run the server until it is stopped; sessions outlive it."""
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
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove every session and all that the server made on this host."""
    from buntime.main import purge

    config = from_environment(os.environ)
    if not yes:
        typer.confirm(f"Remove everything of the server in {config.data_dir}?", abort=True, err=True)
    purge(config)
    if as_json:
        _print_json({"purged": True, "dataDir": str(config.data_dir)})


@server.command("backup")
def backup_command(
    directory: Annotated[Path, typer.Argument(help="Made by this command.")], as_json: AsJson = False
) -> None:
    """Copy the store and the master key, while the server runs."""
    from buntime.admin.backup import back_up

    config = from_environment(os.environ)
    back_up(config, directory)
    if as_json:
        _print_json({"directory": str(directory)})
        return
    typer.echo(f"{directory} has the store and the master key. What belongs to it: docs/lifecycle.md, Backup.")


server.command("mcp")(mcp_command)


def _report(config: Config) -> int:
    """As `doctor.report`, for programs."""
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
    """Looked up when one was raised: then its module is there, and else nobody pays for it."""
    module = sys.modules.get("buntime.admin.accounts")
    return (BadSetting,) if module is None else (BadSetting, module.CommandRefused)


for commands in (
    *(sessions.sessions, running.running, shell.shell, copying.copying),
    *(processes.processes, previews.previews, usage.usage, server),
):
    app.add_typer(commands)


def main() -> None:
    """Exit status: 0, 1 for a refusal in one sentence on stderr, 2 for wrong usage, `exec` and `run`: the program's."""
    try:
        app()
    except _refusals() as refusal:
        typer.echo(f"buntime: {refusal}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
