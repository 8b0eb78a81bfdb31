"""`buntime top`: what the account's sessions do now, as a table that goes on changing."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from buntime_cli.commands.connection import connected
from buntime_cli.commands.options import AsJson
from buntime_cli.commands.screen import Screen
from buntime_cli.commands.showing import print_json, print_table
from buntime_cli.commands.top_rows import HEAD, ordered, row_of

if TYPE_CHECKING:
    from buntime_sdk import MeasuredSession

top = typer.Typer()

PAGE = 1000  # sessions a request


@top.command("top")
def top_command(
    context: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="Print one table and exit.")] = False,
    sort: Annotated[
        Literal["cpu", "memory", "disk", "network", "processes", "age"], typer.Option(help="What comes first.")
    ] = "cpu",
    state: Annotated[
        Literal["active", "idle", "deep-sleep"] | None, typer.Option(help="Only sessions in this state.")
    ] = None,
    every: Annotated[
        float, typer.Option(min=1, max=3600, metavar="SECONDS", help="How often the table is refreshed.")
    ] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Show what sessions use, again and again.

    The server measures active sessions every 10 seconds. Keys: up and down select a session, Enter opens a shell in it,
    z suspends it, Z puts it into deep sleep; c, m, d, n, p and a sort by CPU, memory, disk, network, processes and age,
    r reverses; q quits. Without a terminal, one table is printed.

    Example: buntime top --sort memory
    """
    with connected(context, as_json) as client:

        def asked() -> "list[MeasuredSession]":
            return list(client.sessions.metrics(state=state, page_size=PAGE))

        if as_json:
            print_json(ordered(asked(), sort))
        elif once or not Screen.is_there():
            now = datetime.now(UTC)
            print_table(HEAD, [row_of(session, now) for session in ordered(asked(), sort)])
        else:
            from buntime_cli.commands.top_screen import TopScreen

            TopScreen(client, asked, sort, every).show()
