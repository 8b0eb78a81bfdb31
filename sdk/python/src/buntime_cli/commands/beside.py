"""The commands of a server that is installed beside this client."""

from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

SERVER_COMMANDS = "buntime.commands"  # entry points: Typer apps whose commands are added to these
SERVER_HEAD = "Commands of the server on this host, which BUNTIME_* variables configure"
ELSEWHERE = (
    "'{0}' is a command of the server, which is not installed with this client. On the server's host, "
    "in the server's directory: .venv/bin/buntime {0}"
)


def server_groups() -> Sequence[TyperGroup]:
    """The server's commands; none on a client alone."""
    from importlib.metadata import entry_points

    groups = (typer.main.get_command(one.load()) for one in entry_points(group=SERVER_COMMANDS))
    return [group for group in groups if isinstance(group, TyperGroup)]


def server_command(context: Any, name: str) -> Any:
    """The server's command of this name, or None."""
    return next((one for group in server_groups() if (one := group.get_command(context, name))), None)


def write_section(formatter: Any, head: str, named: Sequence[tuple[str, Any]]) -> None:
    shown = [(name, command) for name, command in named if not command.hidden]
    width = formatter.width - 6 - max(len(name) for name, _ in shown)
    with formatter.section(head):
        formatter.write_dl([(name, command.get_short_help_str(width)) for name, command in shown])
