"""Refusals of the server's commands: one line on stderr, and status 1."""

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from buntime.config import BadSetting


class CommandRefused(Exception):
    """The command cannot be done; the message says why in one sentence."""


class ServerCommand(TyperCommand):
    def invoke(self, ctx: Any) -> Any:
        return _refusable(super().invoke, ctx)


class ServerGroup(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        return _refusable(super().invoke, ctx)


def _refusable(invoke: Callable[[Any], Any], context: Any) -> Any:
    try:
        return invoke(context)
    except (BadSetting, CommandRefused) as refusal:
        typer.echo(f"buntime: {refusal}", err=True)
        raise typer.Exit(1) from None
