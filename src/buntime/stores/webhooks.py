"""Webhooks and their deliveries in SQL. A trigger adds the deliveries of an event."""

import json
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict

from buntime.errors import ResourceLimitExceeded
from buntime.event import EventType
from buntime.ports import EventDelivery
from buntime.stores.events import event_of
from buntime.webhook import Delivery, DeliveryState, SigningSecret, Webhook

LOOKED_AT = 1000  # deliveries that are due, in one look for those that can go

_ADD = """
INSERT INTO webhooks (id, account, url, types, secrets, created_at, off, failing_since, version)
VALUES (:id, :account, :url, :types, :secrets, :created_at, :off, :failing_since, :version)
"""

_CHANGE = """
UPDATE webhooks
SET url = :url, types = :types, secrets = :secrets, version = version + 1,
    failing_since = CASE WHEN off IS NOT NULL AND :off IS NULL THEN NULL ELSE failing_since END, off = :off
WHERE id = :id AND version = :expected
"""

_WAITING = """
SELECT id FROM webhooks
WHERE off IS NULL
  AND NOT EXISTS (SELECT 1 FROM accounts WHERE accounts.id = webhooks.account AND status <> 'active')
  AND EXISTS (SELECT 1 FROM deliveries WHERE webhook = webhooks.id AND state = 'pending' AND due_at <= ?)
ORDER BY created_at, id
"""

_JOINED = """
SELECT events.*, deliveries.id AS delivery, webhook, state, attempts, due_at, tried_at, status, failure
FROM deliveries JOIN events ON events.seq = deliveries.event
"""

# Sessions that are busy are left out first: the index has the session, so they cost little.
# Only the first `looked` rows are judged, so that one look costs little however much is due.
_DUE = """
WITH due AS MATERIALIZED (
  SELECT * FROM deliveries
  WHERE webhook = :webhook AND state = 'pending' AND due_at <= :now
    AND (session IS NULL OR session NOT IN (SELECT value FROM json_each(:busy)))
  ORDER BY due_at, event LIMIT :looked
)
SELECT events.*, due.id AS delivery, webhook, state, attempts, due_at, tried_at, status, failure
FROM due JOIN events ON events.seq = due.event
WHERE (SELECT off FROM webhooks WHERE id = :webhook) IS NULL
  AND NOT EXISTS (
    SELECT 1 FROM deliveries AS earlier
    WHERE earlier.webhook = :webhook AND earlier.session = due.session AND earlier.event < due.event
      AND earlier.state = 'pending' AND earlier.attempts = 1
  )
ORDER BY due_at, due.event LIMIT :limit
"""

_LIST = f"{_JOINED} WHERE webhook = ? ORDER BY event DESC LIMIT ? OFFSET ?"

_SETTLE = """
UPDATE deliveries
SET state = :state, attempts = :attempts, due_at = :due_at, tried_at = :tried_at, status = :status, failure = :failure
WHERE id = :id
"""

_REDELIVER = """
UPDATE deliveries SET state = 'pending', attempts = 0, due_at = :now WHERE id = :id AND webhook = :webhook
"""


def add_webhook(connection: sqlite3.Connection, webhook: Webhook, limit: int) -> None:
    """Raises ResourceLimitExceeded, and ValueError if the id is taken."""
    counted = connection.execute("SELECT count(*) FROM webhooks WHERE account = ?", (webhook.account,)).fetchone()[0]
    if counted >= limit:
        raise ResourceLimitExceeded("webhooks", limit, "account", "")
    try:
        connection.execute(_ADD, _to_row(webhook))
    except sqlite3.IntegrityError as refused:
        raise ValueError(f"webhook id {webhook.id} is taken") from refused


def get_webhook(connection: sqlite3.Connection, webhook_id: str) -> Webhook | None:
    row = connection.execute("SELECT * FROM webhooks WHERE id = ?", (webhook_id,)).fetchone()
    return None if row is None else _webhook(row)


def list_webhooks(connection: sqlite3.Connection, account_id: str) -> Sequence[Webhook]:
    rows = connection.execute("SELECT * FROM webhooks WHERE account = ? ORDER BY created_at, id", (account_id,))
    return [_webhook(row) for row in rows]


def change_webhook(connection: sqlite3.Connection, new: Webhook, expected: int) -> bool:
    return connection.execute(_CHANGE, _to_row(new) | {"expected": expected}).rowcount == 1


def remove_webhook(connection: sqlite3.Connection, webhook_id: str) -> bool:
    return connection.execute("DELETE FROM webhooks WHERE id = ?", (webhook_id,)).rowcount == 1


def remove_webhooks_of(connection: sqlite3.Connection, account_id: str) -> None:
    """All of the account, with their deliveries."""
    connection.execute("DELETE FROM webhooks WHERE account = ?", (account_id,))


def waiting_webhooks(connection: sqlite3.Connection, now: int) -> Sequence[str]:
    return [row["id"] for row in connection.execute(_WAITING, (now,))]


def due_deliveries(
    connection: sqlite3.Connection, webhook_id: str, now: int, limit: int, busy: Collection[str]
) -> Sequence[EventDelivery]:
    asked = {"webhook": webhook_id, "now": now, "limit": limit, "looked": max(LOOKED_AT, limit)}
    return _deliveries(connection.execute(_DUE, asked | {"busy": json.dumps(list(busy))}))


def settle_delivery(connection: sqlite3.Connection, delivery: Delivery) -> bool:
    if connection.execute(_SETTLE, asdict(delivery)).rowcount != 1:
        return False
    worked = delivery.state is DeliveryState.DELIVERED
    since = "NULL" if worked else "coalesce(failing_since, :tried_at)"
    connection.execute(f"UPDATE webhooks SET failing_since = {since} WHERE id = :webhook", asdict(delivery))
    return True


def list_deliveries(
    connection: sqlite3.Connection, webhook_id: str, limit: int, offset: int
) -> tuple[Sequence[EventDelivery], int]:
    total = connection.execute("SELECT count(*) FROM deliveries WHERE webhook = ?", (webhook_id,)).fetchone()[0]
    return _deliveries(connection.execute(_LIST, (webhook_id, limit, offset))), total


def redeliver(connection: sqlite3.Connection, webhook_id: str, delivery_id: str, now: int) -> bool:
    asked = {"id": delivery_id, "webhook": webhook_id, "now": now}
    return connection.execute(_REDELIVER, asked).rowcount == 1


def _deliveries(rows: Iterable[sqlite3.Row]) -> Sequence[EventDelivery]:
    return [EventDelivery(_delivery(row), event_of(row)) for row in rows]


def _delivery(row: sqlite3.Row) -> Delivery:
    tried = (row["tried_at"], row["status"], row["failure"])
    state = DeliveryState(row["state"])
    return Delivery(row["delivery"], row["webhook"], state, row["attempts"], row["due_at"], *tried)


def _to_row(webhook: Webhook) -> dict[str, object]:
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


def _webhook(row: sqlite3.Row) -> Webhook:
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
