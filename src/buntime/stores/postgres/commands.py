"""Implements `CommandStore` with PostgreSQL."""

from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.rows import DictRow

from buntime.account import Account, AccountStatus, Key
from buntime.errors import ResourceLimitExceeded, Unavailable
from buntime.event import AccountEvent
from buntime.fleet.hosts import HostCommands
from buntime.fleet.postgres.commands import FleetCommands
from buntime.image import NamedImage
from buntime.stores.command_store import CommandStore
from buntime.stores.postgres.committing import rows_of
from buntime.stores.postgres.connecting import Place, connect_blocking
from buntime.stores.postgres.queries import query
from buntime.stores.rows.accounts import account_of, account_row, key_of, key_row
from buntime.stores.rows.kept import image_of, image_row
from buntime.stores.rows.webhooks import webhook_of, webhook_row
from buntime.webhook import Webhook


@contextmanager
def command_store(place: Place) -> Iterator[CommandStore]:
    """Commits when the block ends. A server must have made the tables.

    Raises StoreUnusable, and Unavailable for a change of which it is not known that it was stored.
    """
    with connect_blocking(place) as connection:
        try:
            with connection.transaction():
                yield PostgresCommandStore(connection)
        except psycopg.OperationalError as failure:
            said = " ".join(str(failure).split()).rstrip(".")
            raise Unavailable(f"The store failed, so look whether the change is there: {said}.") from failure


class PostgresCommandStore:
    def __init__(self, connection: psycopg.Connection[DictRow]) -> None:
        self._connection = connection

    @property
    def hosts(self) -> HostCommands:
        return FleetCommands(self._connection)

    def add_account(self, account: Account) -> None:
        self._run("add_account", account_row(account))

    def get_account(self, account_id: str) -> Account | None:
        rows = self._all("get_account", id=account_id)
        return account_of(rows[0]) if rows else None

    def list_accounts(self) -> Sequence[Account]:
        return [account_of(row) for row in self._all("list_accounts")]

    def set_account_status(self, account_id: str, status: AccountStatus) -> bool:
        return self._run("set_account_status", {"id": account_id, "status": status.value}) == 1

    def count_sessions(self, account_id: str) -> int:
        return int(self._all("count_sessions", account=account_id)[0]["sessions"])

    def add_key(self, key: Key) -> None:
        self._run("add_key", key_row(key))

    def list_keys(self, account_id: str | None = None) -> Sequence[Key]:
        if account_id is None:
            return [key_of(row) for row in self._all("list_keys")]
        return [key_of(row) for row in self._all("list_keys_of_account", account=account_id)]

    def revoke_key(self, key_id: str, now: int) -> bool:
        return self._run("revoke_key", {"id": key_id, "now": now}) == 1

    def add_events(self, events: Sequence[AccountEvent]) -> None:
        for row in rows_of(events):
            self._run("add_event", row)
        self._run("tell_others", {"host": ""})  # sent by the commit

    def add_image(self, image: NamedImage) -> None:
        self._run("keep_references", {})
        self._run("put_image", image_row(image))

    def list_images(self, account_id: str) -> Sequence[NamedImage]:
        return [image_of(row) for row in self._all("list_images", account=account_id)]

    def remove_image(self, account_id: str, name: str) -> bool:
        return self._run("remove_image", {"account": account_id, "name": name}) == 1

    def used_images(self) -> Set[str]:
        return {row["image"] for row in self._all("used_images")}

    def add_webhook(self, webhook: Webhook, limit: int) -> None:
        self._run("lock_account", {"account": webhook.account})
        if self._all("count_webhooks", account=webhook.account)[0]["webhooks"] >= limit:
            raise ResourceLimitExceeded("webhooks", limit, "account", "")
        self._run("number_events", {})
        self._run("add_webhook", webhook_row(webhook))

    def get_webhook(self, webhook_id: str) -> Webhook | None:
        rows = self._all("get_webhook", id=webhook_id)
        return webhook_of(rows[0]) if rows else None

    def list_webhooks(self, account_id: str) -> Sequence[Webhook]:
        return [webhook_of(row) for row in self._all("list_webhooks", account=account_id)]

    def remove_webhook(self, webhook_id: str) -> bool:
        self._run("number_events", {})
        return self._run("remove_webhook", {"id": webhook_id}) == 1

    def remove_webhooks_of(self, account_id: str) -> None:
        self._run("number_events", {})
        self._run("remove_webhooks_of", {"account": account_id})

    def _run(self, name: str, values: dict[str, object]) -> int:
        return self._connection.execute(query(name), values).rowcount

    def _all(self, name: str, /, **values: object) -> list[dict[str, Any]]:
        return self._connection.execute(query(name), values).fetchall()
