"""`buntime events`: what happened in the account."""

from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from buntime_cli.commands.connection import connected
from buntime_cli.commands.options import AsJson
from buntime_cli.commands.showing import plain, print_json, print_table

if TYPE_CHECKING:
    from buntime_sdk import Event

PAGE = 1000

events = typer.Typer()


@events.command("events")
def events_command(
    context: typer.Context,
    session: Annotated[
        str | None,
        typer.Option(metavar="SESSION", help="Only of this session: its id, also if it is gone, or name:NAME."),
    ] = None,
    kind: Annotated[str | None, typer.Option("--type", metavar="TYPE", help="Only of this type.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with events as they happen.")] = False,
    last: Annotated[
        int, typer.Option("--last", "-n", min=0, metavar="N", help="How many of the newest to print.")
    ] = 20,
    as_json: AsJson = False,
) -> None:
    """Show what happened: time, type, session, and the key and address that caused it.

    With --json, it prints one event a line.

    Example: buntime events --type session.deleted
    """
    from buntime_sdk import EventType

    if kind is not None and kind not in get_args(EventType):
        raise typer.BadParameter(
            f"There is no type {kind!r}. Types: {', '.join(get_args(EventType))}.", param_hint="--type"
        )
    wanted: dict[str, Any] = {"session_id": session, "type": kind}
    with connected(context, as_json) as client:
        newest: list[Event] = []
        page = client.events.list(**wanted, limit=PAGE)
        while page.events:
            newest = [*newest, *page.events][-last:] if last else []
            page = client.events.list(**wanted, limit=PAGE, cursor=page.cursor)
        _show(newest, as_json)
        if follow:
            for event in client.events.follow(**wanted, cursor=page.cursor):
                _show([event], as_json, head=False)


def _show(found: "list[Event]", as_json: bool, *, head: bool = True) -> None:
    if as_json:
        for event in found:
            print_json(event)
    elif head:
        print_table(("TIME", "TYPE", "SESSION", "KEY", "ADDRESS", "DATA"), [_row(event) for event in found])
    else:
        for event in found:
            print("  ".join(_row(event)).rstrip(), flush=True)


def _row(event: "Event") -> tuple[str, ...]:
    by = event.data.get("by", {})
    data = " ".join(
        f"{name}={_word(value)}" for name, value in event.data.items() if name != "by" and value is not None
    )
    time = f"{event.time:%Y-%m-%dT%H:%M:%SZ}"
    who = str(by.get("keyId") or by.get("actor", ""))
    return time, event.type, event.session_id or "", who, str(by.get("address", "")), plain(data)


def _word(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
