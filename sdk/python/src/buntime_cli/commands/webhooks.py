"""`buntime webhooks`: where the account's events are sent, and on a server's host those of all accounts."""

import sys
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from buntime_cli.commands.beside import ELSEWHERE, server_command
from buntime_cli.commands.connection import connected
from buntime_cli.commands.options import AsJson
from buntime_cli.commands.showing import plain, print_json, print_table
from buntime_cli.time_spans import seconds

if TYPE_CHECKING:
    from buntime_sdk import Delivery, Webhook

ANY = "all"

webhooks = typer.Typer(
    help="Webhooks: URLs to which events are sent, signed.\n\nWith --all on a server's host, they are the operator's: "
    "they get the events of all accounts.\n\nExample: buntime webhooks create https://example.com/hook",
    no_args_is_help=True,
    rich_markup_mode=None,
)
webhook_commands = typer.Typer()
webhook_commands.add_typer(webhooks, name="webhooks")

Id = Annotated[str, typer.Argument(metavar="WEBHOOK", help="The id (whk_…).")]
Types = Annotated[
    list[str] | None, typer.Option("--event", metavar="TYPE", help="A type of events. Repeatable. Default: all.")
]
OfServer = Annotated[bool, typer.Option("--all", help="On a server's host: the operator's, of all accounts.")]


@webhooks.command("create")
def create_command(
    context: typer.Context,
    url: Annotated[str, typer.Argument(metavar="URL", help="Where events are sent.")],
    event: Types = None,
    of_server: OfServer = False,
    as_json: AsJson = False,
) -> None:
    """Create a webhook and print its secret. The secret is shown only once.

    Example: buntime webhooks create https://example.com/hook --event session.deleted
    """
    _check(event)
    if of_server:
        _ask(context, "create", [url, *(word for one in event or () for word in ("--event", one))], as_json)
        return
    with connected(context, as_json) as client:
        made = client.webhooks.create(url, events=event)  # type: ignore[arg-type]
    if as_json:
        print_json(made)
        return
    print(made.secret, flush=True)
    print(f"{made.webhook_id}. Keep the secret: it is not shown again.", file=sys.stderr)


@webhooks.command("list")
def list_command(context: typer.Context, of_server: OfServer = False, as_json: AsJson = False) -> None:
    """List webhooks: id, state, since when it fails, types of events, URL.

    Example: buntime webhooks list
    """
    if of_server:
        _ask(context, "list", [], as_json)
        return
    with connected(context, as_json) as client:
        found = list(client.webhooks.list(page_size=100))
    if as_json:
        print_json(found)
    else:
        print_table(("WEBHOOK", "STATE", "FAILING SINCE", "EVENTS", "URL"), [_row(one) for one in found])


@webhooks.command("update")
def update_command(
    context: typer.Context,
    webhook: Id,
    url: Annotated[str | None, typer.Option(metavar="URL", help="Where events are sent from now on.")] = None,
    event: Annotated[
        list[str] | None, typer.Option("--event", metavar="TYPE", help="A type of events, or all. Repeatable.")
    ] = None,
    enable: Annotated[bool | None, typer.Option("--on/--off", help="Turn it on or off.")] = None,
    as_json: AsJson = False,
) -> None:
    """Change a webhook. Options that you leave out stay as they are.

    Example: buntime webhooks update whk_… --on
    """
    from buntime_sdk import UNCHANGED

    types: Any = UNCHANGED if event is None else None if event == [ANY] else event
    if event != [ANY]:
        _check(event)
    with connected(context, as_json) as client:
        changed = client.webhooks.update(webhook, url=url, events=types, enabled=enable)
    if as_json:
        print_json(changed)
    else:
        print(f"{changed.webhook_id} is {_state(changed)}.")


@webhooks.command("rotate")
def rotate_command(
    context: typer.Context,
    webhook: Id,
    overlap: Annotated[
        str | None, typer.Option(metavar="TIME", help="How long the old secret is valid too: 0, 12h. Default: 1d.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Give a webhook a new secret and print it. The secret is shown only once.

    Example: buntime webhooks rotate whk_… --overlap 2h
    """
    lasts = None if overlap is None else 0 if overlap == "0" else seconds(overlap)
    with connected(context, as_json) as client:
        made = client.webhooks.rotate(webhook, overlap=lasts)
    if as_json:
        print_json(made)
        return
    print(made.secret, flush=True)
    print(f"{made.webhook_id}. Keep the secret: it is not shown again.", file=sys.stderr)


@webhooks.command("test")
def send_test(context: typer.Context, webhook: Id, as_json: AsJson = False) -> None:
    """Send a webhook.test event to a webhook. It does not wait for it: look with deliveries.

    Example: buntime webhooks test whk_…
    """
    with connected(context, as_json) as client:
        event_id = client.webhooks.test(webhook)
    if as_json:
        print_json({"eventId": event_id})
    else:
        print(event_id)


@webhooks.command("deliveries")
def deliveries_command(
    context: typer.Context,
    webhook: Id,
    last: Annotated[int, typer.Option("--last", "-n", min=1, metavar="N", help="How many of the newest.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List what was sent to a webhook, newest first: id, time of the event, state, attempts, status, type, failure.

    Example: buntime webhooks deliveries whk_…
    """
    found: list[Delivery] = []
    with connected(context, as_json) as client:
        for one in client.webhooks.deliveries(webhook, page_size=min(last, 100)):
            found.append(one)
            if len(found) == last:
                break
    if as_json:
        print_json(found)
    else:
        head = ("DELIVERY", "TIME", "STATE", "ATTEMPTS", "STATUS", "TYPE", "FAILURE")
        print_table(head, [_delivery_row(one) for one in found])


@webhooks.command("redeliver")
def redeliver_command(
    context: typer.Context,
    webhook: Id,
    delivery: Annotated[str, typer.Argument(metavar="DELIVERY", help="The id (dlv_…).")],
    as_json: AsJson = False,
) -> None:
    """Send an event once more, whatever came of it before.

    Example: buntime webhooks redeliver whk_… dlv_…
    """
    with connected(context, as_json) as client:
        client.webhooks.redeliver(webhook, delivery)
    if as_json:
        print_json({"deliveryId": delivery})
    else:
        print(f"{delivery} is sent again.")


@webhooks.command("delete")
def delete_command(context: typer.Context, webhook: Id, of_server: OfServer = False, as_json: AsJson = False) -> None:
    """Delete a webhook, with its deliveries.

    Example: buntime webhooks delete whk_…
    """
    if of_server:
        _ask(context, "delete", [webhook], as_json)
        return
    with connected(context, as_json) as client:
        client.webhooks.delete(webhook)
    if as_json:
        print_json({"id": webhook, "deleted": True})
    else:
        print(webhook)


def _check(types: list[str] | None) -> None:
    from buntime_sdk import EventType

    for one in types or ():
        if one not in get_args(EventType):
            known = ", ".join(get_args(EventType))
            raise typer.BadParameter(f"There is no type {one!r}. Types: {known}.", param_hint="--event")


def _ask(context: typer.Context, name: str, words: list[str], as_json: bool) -> None:
    """Runs the command of the server on this host."""
    servers = server_command(context, "webhooks")
    if servers is None:
        raise typer.BadParameter(ELSEWHERE.format(f"webhooks {name} --all"), context)
    command = servers.get_command(context, name)
    with command.make_context(name, [*words, *(["--json"] if as_json else [])], parent=context.parent) as inner:
        command.invoke(inner)


def _state(webhook: "Webhook") -> str:
    return "on" if webhook.enabled else f"off ({webhook.disabled_reason})"


def _row(webhook: "Webhook") -> tuple[str, ...]:
    since = "" if webhook.failing_since is None else f"{webhook.failing_since:%Y-%m-%dT%H:%M:%SZ}"
    types = ANY if webhook.events is None else ",".join(webhook.events)
    return webhook.webhook_id, _state(webhook), since, types, plain(webhook.url)


def _delivery_row(one: "Delivery") -> tuple[str, ...]:
    status = "" if one.status is None else str(one.status)
    time = f"{one.event.time:%Y-%m-%dT%H:%M:%SZ}"
    tried = str(one.attempts)
    return one.delivery_id, time, one.state, tried, status, one.event.type, plain(one.failure or "")
