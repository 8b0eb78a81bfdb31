"""Deliveries of events to webhooks, in SQL. A trigger adds them together with their event."""

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict

from buntime.ports import DeliveryNumbers, DuePage, EventDelivery, News, Place
from buntime.stores.rows.webhooks import event_delivery_of
from buntime.webhook import MOST_LISTED, Delivery, DeliveryState

LOOKED_AT = 500  # deliveries that are due, in one look for those that can go
MOST_COUNTED = 100_000  # pending ones

_WAITING = """
SELECT id, version, redeliveries,
  (SELECT max(event) FROM deliveries WHERE webhook = webhooks.id) AS newest,
  (SELECT max(due_at) FROM deliveries WHERE webhook = webhooks.id AND state = 'pending' AND due_at <= :now) AS due
FROM webhooks
WHERE off IS NULL
  AND NOT EXISTS (SELECT 1 FROM accounts WHERE accounts.id = webhooks.account AND status <> 'active')
  AND EXISTS (SELECT 1 FROM deliveries WHERE webhook = webhooks.id AND state = 'pending' AND due_at <= :now)
ORDER BY created_at, id
"""

_JOINED = """
SELECT events.*, deliveries.id AS delivery, webhook, state, attempts, due_at, tried_at, status, failure, redelivery
FROM deliveries JOIN events ON events.seq = deliveries.event
"""

# An index has these columns, so a look reads no row of the table.
_LOOK = """
SELECT rowid AS place, due_at, event, session FROM deliveries
WHERE webhook = :webhook AND state = 'pending' AND due_at <= :now AND (due_at, event) > (:after, :after_event)
ORDER BY due_at, event LIMIT :looked
"""

_FAILED_ONCE = """
SELECT session, min(event) AS event FROM deliveries
WHERE webhook = :webhook AND state = 'pending' AND attempts = 1
  AND session IN (SELECT value FROM json_each(:sessions))
GROUP BY session
"""

_FOUND = f"""
{_JOINED}
WHERE deliveries.rowid IN (SELECT value FROM json_each(?)) AND state = 'pending' ORDER BY due_at, deliveries.event
"""

# The index alone is read to skip the offset.
_LIST = f"""
{_JOINED}
WHERE deliveries.rowid IN (SELECT rowid FROM deliveries WHERE webhook = ? ORDER BY event DESC LIMIT ? OFFSET ?)
ORDER BY deliveries.event DESC
"""

_COUNT = "SELECT count(*) FROM (SELECT 1 FROM deliveries WHERE webhook = ? LIMIT ?)"

# Most settle nothing about the webhook, and then write nothing.
_WORKS = "UPDATE webhooks SET failing_since = NULL WHERE id = :webhook AND failing_since IS NOT NULL"
_FAILS = "UPDATE webhooks SET failing_since = :tried_at WHERE id = :webhook AND failing_since IS NULL"

_SETTLE = """
UPDATE deliveries
SET state = :state, attempts = :attempts, due_at = :due_at, tried_at = :tried_at, status = :status, failure = :failure
WHERE id = :id AND redelivery = :redelivery AND state = 'pending'
  AND EXISTS (SELECT 1 FROM webhooks WHERE webhooks.id = deliveries.webhook AND removed = 0)
"""

# One that is pending keeps its place before the later events of its session, which an attempt would hold back.
_REDELIVER = """
UPDATE deliveries
SET state = 'pending', attempts = 0,
    due_at = CASE state WHEN 'pending' THEN min(:now, (SELECT time FROM events WHERE seq = event)) ELSE :now END,
    redelivery = 1 + (SELECT redeliveries FROM webhooks WHERE id = :webhook)
WHERE id = :id AND webhook = :webhook
"""

# CROSS JOIN reads webhooks first, here and below: what is pending at those that are off is not read.
_PENDING = """
SELECT count(*) FROM (
  SELECT 1 FROM webhooks CROSS JOIN deliveries ON deliveries.webhook = webhooks.id
  WHERE off IS NULL AND state = 'pending' LIMIT ?
)
"""
_OFF = "SELECT off, count(*) AS webhooks FROM webhooks WHERE off IS NOT NULL AND removed = 0 GROUP BY off"

_DROP_REMOVED = """
DELETE FROM deliveries WHERE rowid IN (
  SELECT deliveries.rowid FROM webhooks CROSS JOIN deliveries ON deliveries.webhook = webhooks.id
  WHERE removed = 1 LIMIT ?
)
"""

_DROP_EMPTY = """
DELETE FROM webhooks WHERE rowid IN (
  SELECT rowid FROM webhooks
  WHERE removed = 1 AND NOT EXISTS (SELECT 1 FROM deliveries WHERE webhook = webhooks.id) LIMIT ?
)
"""


def waiting_webhooks(connection: sqlite3.Connection, now: int) -> Mapping[str, News]:
    rows = connection.execute(_WAITING, {"now": now})
    return {row["id"]: (row["newest"], row["due"], row["redeliveries"], row["version"]) for row in rows}


def due_deliveries(
    connection: sqlite3.Connection, webhook_id: str, now: int, limit: int, busy: Collection[str], after: Place
) -> DuePage:
    found = connection.execute("SELECT off FROM webhooks WHERE id = ?", (webhook_id,)).fetchone()
    if found is None or found["off"] is not None:
        return DuePage([], None)
    asked = {"webhook": webhook_id, "now": now, "after": after[0], "after_event": after[1], "looked": LOOKED_AT}
    looked = connection.execute(_LOOK, asked).fetchall()
    free = [row for row in looked if row["session"] not in busy]
    held = _held(connection, webhook_id, {row["session"] for row in free})
    can_go = [row for row in free if held.get(row["session"], row["event"]) >= row["event"]]
    page = can_go[:limit]
    last = page[-1] if len(can_go) > limit else looked[-1] if len(looked) == LOOKED_AT else None
    rows = connection.execute(_FOUND, (json.dumps([row["place"] for row in page]),))
    return DuePage(_deliveries(rows), last and (last["due_at"], last["event"]))


def settle_delivery(connection: sqlite3.Connection, delivery: Delivery) -> bool:
    row = asdict(delivery)
    connection.execute(_WORKS if delivery.state is DeliveryState.DELIVERED else _FAILS, row)
    return connection.execute(_SETTLE, row).rowcount == 1


def list_deliveries(
    connection: sqlite3.Connection, webhook_id: str, limit: int, offset: int
) -> tuple[Sequence[EventDelivery], int]:
    if connection.execute("SELECT 1 FROM webhooks WHERE id = ? AND removed = 0", (webhook_id,)).fetchone() is None:
        return [], 0
    total = connection.execute(_COUNT, (webhook_id, MOST_LISTED)).fetchone()[0]
    shown = max(0, min(limit, MOST_LISTED - offset))
    return _deliveries(connection.execute(_LIST, (webhook_id, shown, offset))), total


def redeliver(connection: sqlite3.Connection, webhook_id: str, delivery_id: str, now: int) -> bool:
    asked = {"id": delivery_id, "webhook": webhook_id, "now": now}
    if connection.execute(_REDELIVER, asked).rowcount != 1:
        return False
    connection.execute("UPDATE webhooks SET redeliveries = redeliveries + 1 WHERE id = ?", (webhook_id,))
    return True


def delivery_numbers(connection: sqlite3.Connection) -> DeliveryNumbers:
    pending = connection.execute(_PENDING, (MOST_COUNTED,)).fetchone()[0]
    return DeliveryNumbers(pending, {row["off"]: row["webhooks"] for row in connection.execute(_OFF)})


def drop_removed(connection: sqlite3.Connection, most: int) -> int:
    """Removes at most `most` deliveries of removed webhooks, and at most as many of those webhooks that have none left.
    Returns the larger number: it is `most` if there may be more."""
    dropped = connection.execute(_DROP_REMOVED, (most,)).rowcount
    return max(dropped, connection.execute(_DROP_EMPTY, (most,)).rowcount)


def _held(connection: sqlite3.Connection, webhook_id: str, sessions: Collection[str | None]) -> Mapping[str, int]:
    """Session → the number of its first event that has exactly one failed attempt."""
    asked = {"webhook": webhook_id, "sessions": json.dumps([one for one in sessions if one is not None])}
    return {row["session"]: row["event"] for row in connection.execute(_FAILED_ONCE, asked)}


def _deliveries(rows: Iterable[sqlite3.Row]) -> Sequence[EventDelivery]:
    return [event_delivery_of(row) for row in rows]
