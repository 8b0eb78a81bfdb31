"""`buntime webhooks … --all` on a server's host: the operator's webhooks, which get the events of all accounts."""

import json
import os
import time
from typing import Annotated

import typer

from buntime.admin.printing import AsJson, print_table, say, shown_time
from buntime.admin.refusals import CommandRefused, ServerCommand
from buntime.admin.store import open_store
from buntime.cause import OPERATOR
from buntime.config import from_environment
from buntime.errors import ResourceLimitExceeded
from buntime.event import EventType
from buntime.ids import new_id
from buntime.lifecycle.master_key import load_master_key
from buntime.lifecycle.sealing import Vault
from buntime.operations.signing import Signing
from buntime.operations.webhooks import WEBHOOKS
from buntime.webhook import EVERYONE, WEBHOOK_PREFIX, Webhook, check_url, of_webhook

webhooks = typer.Typer(
    help="The operator's webhooks.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)


@webhooks.command("create", cls=ServerCommand)
def create_webhook(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where events are sent.")],
    event: Annotated[
        list[str] | None, typer.Option(metavar="TYPE", help="A type of events. Repeatable. Default: all.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create a webhook that gets the events of all accounts, and print its secret. The secret is shown only once.

    Example: buntime webhooks create --all https://example.com/hook
    """
    try:
        check_url(url)
    except ValueError as wrong:
        raise CommandRefused(f"URL {wrong}.") from None
    if unknown := [one for one in event or () if one not in set(EventType)]:
        raise CommandRefused(f"There is no type {unknown[0]!r}. Types: {', '.join(EventType)}.")
    config, now, webhook_id = from_environment(os.environ), int(time.time()), new_id(WEBHOOK_PREFIX)
    with open_store(config) as store:
        key = load_master_key(config.master_key_file or config.data_dir / "master.key", may_create=False)
        secret, sealed = Signing(Vault(key)).new(webhook_id)
        types = frozenset(map(EventType, event)) if event else None
        webhook = Webhook(webhook_id, EVERYONE, url, (sealed,), now, types)
        try:
            store.add_webhook(webhook, WEBHOOKS)
        except ResourceLimitExceeded:
            raise CommandRefused(f"There are {WEBHOOKS} webhooks of the operator already.") from None
        store.add_events([of_webhook(webhook, EventType.WEBHOOK_CREATED, now, cause=OPERATOR)])
    say(secret, _told(webhook) | {"secret": secret}, as_json)
    typer.echo(f"{webhook_id} gets the events of all accounts. Keep the secret: it is not shown again.", err=True)


@webhooks.command("list", cls=ServerCommand)
def list_webhooks(as_json: AsJson = False) -> None:
    """List the operator's webhooks: id, state, since when it fails, types of events, URL.

    Example: buntime webhooks list --all
    """
    with open_store(from_environment(os.environ)) as store:
        found = store.list_webhooks(EVERYONE)
    if as_json:
        typer.echo(json.dumps([_told(webhook) for webhook in found]))
        return
    rows = [
        (
            webhook.id,
            "on" if webhook.off is None else f"off ({webhook.off})",
            "" if webhook.failing_since is None else shown_time(webhook.failing_since),
            "all" if webhook.types is None else ",".join(sorted(webhook.types)),
            webhook.url,
        )
        for webhook in found
    ]
    print_table(("WEBHOOK", "STATE", "FAILING SINCE", "EVENTS", "URL"), rows)


@webhooks.command("delete", cls=ServerCommand)
def delete_webhook(
    webhook_id: Annotated[str, typer.Argument(metavar="WEBHOOK", help="The id (whk_…).")], as_json: AsJson = False
) -> None:
    """Delete a webhook of the operator.

    Example: buntime webhooks delete --all whk_…
    """
    with open_store(from_environment(os.environ)) as store:
        found = store.get_webhook(webhook_id)
        if found is None or found.account != EVERYONE:
            raise CommandRefused(f"There is no webhook {webhook_id} of the operator.")
        store.remove_webhook(webhook_id)
        told = of_webhook(found, EventType.WEBHOOK_DELETED, time.time(), cause=OPERATOR)
        store.add_events([told])
    say(webhook_id, {"id": webhook_id, "deleted": True}, as_json)


def _told(webhook: Webhook) -> dict[str, object]:
    return {
        **{"webhookId": webhook.id, "url": webhook.url},
        **{"events": None if webhook.types is None else sorted(webhook.types)},
        **{"enabled": webhook.off is None, "disabledReason": webhook.off},
        "createdAt": shown_time(webhook.created_at),
    }
