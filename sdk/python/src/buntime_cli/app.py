"""The commands. Each imports what it needs when it runs, so that all of them start quickly."""

from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from buntime_cli.commands import (
    copying,
    events,
    forks,
    forwarding,
    images,
    keys,
    login,
    metrics,
    previews,
    processes,
    running,
    services,
    sessions,
    settings,
    shell,
    snapshots,
    top,
    usage,
    webhooks,
)
from buntime_cli.commands.beside import ELSEWHERE, SERVER_HEAD, server_command, server_groups, write_section
from buntime_cli.commands.help_pages import PlainContext, plainly_helped
from buntime_cli.commands.usage_errors import UsageError, reworded
from buntime_cli.mcp.command import mcp_command

SERVER_NAMES = ("accounts", "backup", "doctor", "hosts", "purge", "serve", "store", "watchdog")
MEANT = {"delete": "rm", "remove": "rm", "list": "ls", "version": "--version", "help": "--help"}


class Commands(TyperGroup):
    """Adds the commands of a server that is installed beside, which are looked up only when they are asked for."""

    context_class = PlainContext

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UsageError as wrong:
            raise reworded(wrong) from wrong.__cause__

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in MEANT:
            raise UsageError(f"There is no command {args[0]}. Write: buntime {MEANT[args[0]]}", ctx)
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        own = super().list_commands(ctx)
        return [*own, *(name for group in server_groups() for name in group.list_commands(ctx) if name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = super().get_command(ctx, cmd_name)
        if found is not None:
            return plainly_helped(found)
        found = server_command(ctx, cmd_name)
        if found is None and cmd_name in SERVER_NAMES:
            raise typer.BadParameter(ELSEWHERE.format(cmd_name), ctx, param_hint="COMMAND")
        return None if found is None else plainly_helped(found)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        own = super().list_commands(ctx)
        write_section(formatter, "Commands", [(name, self.get_command(ctx, name)) for name in own])
        for group in server_groups():
            named = [(name, group.get_command(ctx, name)) for name in group.list_commands(ctx) if name not in own]
            write_section(formatter, SERVER_HEAD, named)


# bash splits words at the colon of SESSION:PATH: this asks for the whole word and gives bash what follows the colon.
BASH_COMPLETION = r"""
_buntime_completion() {
    local line="${COMP_LINE:0:COMP_POINT}"
    local word="${line##*[[:space:]]}" IFS=$' \t\n'
    local -a before
    read -r -a before <<< "${line%"$word"}"
    IFS=$'\n'
    COMPREPLY=( $( env COMP_WORDS="$line" COMP_CWORD=${#before[@]} VARIABLE=complete_bash "$1" ) )
    if [[ $word == *:* && $COMP_WORDBREAKS == *:* ]]; then
        COMPREPLY=( "${COMPREPLY[@]#"${word%:*}:"}" )
    fi
    [[ ${COMPREPLY[0]} == *[:/] ]] && compopt -o nospace 2>/dev/null
    return 0
}

complete -o default -F _buntime_completion buntime
"""

app = typer.Typer(
    name="buntime",
    cls=Commands,
    help="Isolated Bun sessions for AI agents. Commands that talk to a server use BUNTIME_URL and BUNTIME_API_KEY, or "
    "the server of `buntime login`.",
    no_args_is_help=True,
    rich_markup_mode=None,  # importing rich takes as long as everything else together
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
rest = typer.Typer()


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(version("buntime-sdk"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
    server: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Use this server of `buntime login`. Write it before the command."),
    ] = None,
) -> None:
    """Options before the command."""


@rest.command("completion")
def completion_command(
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(metavar="SHELL", help="bash, zsh or fish.")],
) -> None:
    """Print the completion script for a shell.

    For bash, add this to ~/.bashrc: eval "$(buntime completion bash)". It also completes paths in sessions, which
    the script of --install-completion cannot do for bash.

    Example: buntime completion fish > ~/.config/fish/completions/buntime.fish
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    variable = "_BUNTIME_COMPLETE"
    typer.echo(
        BASH_COMPLETION.replace("VARIABLE", variable).strip()
        if shell == "bash"
        else get_completion_script(prog_name="buntime", complete_var=variable, shell=shell)
    )


rest.command("mcp")(mcp_command)

for commands in (
    *(sessions.sessions, settings.settings, snapshots.taking, forks.forks, images.image_commands, keys.key_commands),
    *(events.events, webhooks.webhook_commands),
    *(running.running, shell.shell, copying.copying),
    *(processes.processes, services.service_commands, previews.previews, forwarding.forwarding),
    *(usage.usage, metrics.metrics, top.top, login.login, rest),
):
    app.add_typer(commands)
