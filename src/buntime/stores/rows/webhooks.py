"""Webhooks and their deliveries."""

import json
from dataclasses import asdict

from buntime.event import EventType
from buntime.ports import EventDelivery
from buntime.stores.rows.events import event_of
from buntime.stores.rows.row import Row, Values
from buntime.webhook import Delivery, DeliveryState, SigningSecret, Webhook


def webhook_row(webhook: Webhook) -> Values:
    types = None if webhook.types is None else json.dumps(sorted(webhook.types))
    return {
        "id": webhook.id,
        "account": webhook.account,
        "url": webhook.url,
        "types": types,
        "secrets": json.dumps([asdict(secret) for secret in webhook.secrets]),
        "created_at": webhook.created_at,
        "off": webhook.off,
        "failing_since": webhook.failing_since,
        "version": webhook.version,
    }


def webhook_of(row: Row) -> Webhook:
    types = row["types"]
    return Webhook(
        id=row["id"],
        account=row["account"],
        url=row["url"],
        secrets=tuple(SigningSecret(**secret) for secret in json.loads(row["secrets"])),
        created_at=row["created_at"],
        types=None if types is None else frozenset(map(EventType, json.loads(types))),
        off=row["off"],
        failing_since=row["failing_since"],
        version=row["version"],
    )


def event_delivery_of(row: Row) -> EventDelivery:
    """Of a delivery joined with its event, whose id is `id`; that of the delivery is `delivery`."""
    tried = (row["tried_at"], row["status"], row["failure"])
    state = DeliveryState(row["state"])
    delivery = Delivery(
        row["delivery"], row["webhook"], state, row["attempts"], row["due_at"], *tried, row["redelivery"]
    )
    return EventDelivery(delivery, event_of(row))
