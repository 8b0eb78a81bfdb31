"""Webhooks in SQL."""

import sqlite3
from collections.abc import Sequence

from buntime.account import AccountStatus
from buntime.errors import ResourceLimitExceeded, Unauthorized
from buntime.stores.rows.webhooks import webhook_of, webhook_row
from buntime.webhook import Webhook

_ADD = """
INSERT INTO webhooks (id, account, url, types, secrets, created_at, off, failing_since, version)
VALUES (:id, :account, :url, :types, :secrets, :created_at, :off, :failing_since, :version)
"""

_CHANGE = """
UPDATE webhooks
SET url = :url, types = :types, secrets = :secrets, version = version + 1,
    failing_since = CASE WHEN off IS NOT NULL AND :off IS NULL THEN NULL ELSE failing_since END, off = :off
WHERE id = :id AND version = :expected AND removed = 0
"""

MOST_AT_ONCE = 100  # deliveries that go together with their webhook

_REMOVE = "UPDATE webhooks SET removed = 1, off = 'asked', url = '', types = NULL, secrets = '[]' WHERE removed = 0"
_COUNT_DELIVERIES = "SELECT count(*) FROM (SELECT 1 FROM deliveries WHERE webhook = ? LIMIT ?)"


def add_webhook(connection: sqlite3.Connection, webhook: Webhook, limit: int) -> None:
    """Raises Unauthorized if the account is deleted, ResourceLimitExceeded, and ValueError if the id is taken."""
    account = connection.execute("SELECT status FROM accounts WHERE id = ?", (webhook.account,)).fetchone()
    if account is not None and account["status"] == AccountStatus.DELETED:
        raise Unauthorized("The account is deleted.")
    if len(list_webhooks(connection, webhook.account)) >= limit:
        raise ResourceLimitExceeded("webhooks", limit, "account", "")
    try:
        connection.execute(_ADD, webhook_row(webhook))
    except sqlite3.IntegrityError as refused:
        raise ValueError(f"webhook id {webhook.id} is taken") from refused


def get_webhook(connection: sqlite3.Connection, webhook_id: str) -> Webhook | None:
    row = connection.execute("SELECT * FROM webhooks WHERE id = ? AND removed = 0", (webhook_id,)).fetchone()
    return None if row is None else webhook_of(row)


def list_webhooks(connection: sqlite3.Connection, account_id: str) -> Sequence[Webhook]:
    query = "SELECT * FROM webhooks WHERE account = ? AND removed = 0 ORDER BY created_at, id"
    return [webhook_of(row) for row in connection.execute(query, (account_id,))]


def change_webhook(connection: sqlite3.Connection, new: Webhook, expected: int) -> bool:
    return connection.execute(_CHANGE, webhook_row(new) | {"expected": expected}).rowcount == 1


def remove_webhook(connection: sqlite3.Connection, webhook_id: str) -> bool:
    """With many deliveries, it costs a change of one row, and `deliveries.drop_removed` does the rest. With few, they
    go at once."""
    if connection.execute(f"{_REMOVE} AND id = ?", (webhook_id,)).rowcount != 1:
        return False
    if connection.execute(_COUNT_DELIVERIES, (webhook_id, MOST_AT_ONCE + 1)).fetchone()[0] <= MOST_AT_ONCE:
        connection.execute("DELETE FROM webhooks WHERE id = ?", (webhook_id,))
    return True


def remove_webhooks_of(connection: sqlite3.Connection, account_id: str) -> None:
    """All of the account."""
    connection.execute(f"{_REMOVE} AND account = ?", (account_id,))
