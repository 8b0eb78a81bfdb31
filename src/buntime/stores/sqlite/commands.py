"""Implements `CommandStore` with the SQLite file."""

import sqlite3
from collections.abc import Iterator, Sequence, Set
from contextlib import closing, contextmanager
from pathlib import Path

from buntime.account import Account, AccountStatus, Key
from buntime.errors import Unavailable
from buntime.event import AccountEvent
from buntime.image import NamedImage
from buntime.stores.command_store import CommandStore
from buntime.stores.sqlite import accounts, database, events, images, webhooks
from buntime.webhook import Webhook


@contextmanager
def command_store(path: Path) -> Iterator[CommandStore]:
    """Commits when the block ends. The file must exist.

    Raises StoreUnusable, and Unavailable for a change that cannot be stored now.
    """
    connection = database.connect(path)
    with closing(connection):
        try:
            with database.transaction(connection):
                yield SqliteCommandStore(connection)
        except sqlite3.Error as failure:
            raise Unavailable(f"The store cannot be used at the moment: {failure}.") from failure


class SqliteCommandStore:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @property
    def hosts(self) -> None:
        return None

    def add_account(self, account: Account) -> None:
        accounts.add_account(self._connection, account)

    def get_account(self, account_id: str) -> Account | None:
        return accounts.get_account(self._connection, account_id)

    def list_accounts(self) -> Sequence[Account]:
        return accounts.list_accounts(self._connection)

    def set_account_status(self, account_id: str, status: AccountStatus) -> bool:
        return accounts.set_account_status(self._connection, account_id, status)

    def count_sessions(self, account_id: str) -> int:
        return accounts.count_sessions(self._connection, account_id)

    def add_key(self, key: Key) -> None:
        accounts.add_key(self._connection, key)

    def list_keys(self, account_id: str | None = None) -> Sequence[Key]:
        return accounts.list_keys(self._connection, account_id)

    def revoke_key(self, key_id: str, now: int) -> bool:
        return accounts.revoke_key(self._connection, key_id, now)

    def add_events(self, told: Sequence[AccountEvent]) -> None:
        events.add_events(self._connection, told)

    def add_image(self, image: NamedImage) -> None:
        images.put_image(self._connection, image)

    def list_images(self, account_id: str) -> Sequence[NamedImage]:
        return images.list_images(self._connection, account_id)

    def remove_image(self, account_id: str, name: str) -> bool:
        return images.remove_image(self._connection, account_id, name)

    def used_images(self) -> Set[str]:
        return images.used_images(self._connection)

    def add_webhook(self, webhook: Webhook, limit: int) -> None:
        webhooks.add_webhook(self._connection, webhook, limit)

    def get_webhook(self, webhook_id: str) -> Webhook | None:
        return webhooks.get_webhook(self._connection, webhook_id)

    def list_webhooks(self, account_id: str) -> Sequence[Webhook]:
        return webhooks.list_webhooks(self._connection, account_id)

    def remove_webhook(self, webhook_id: str) -> bool:
        return webhooks.remove_webhook(self._connection, webhook_id)

    def remove_webhooks_of(self, account_id: str) -> None:
        webhooks.remove_webhooks_of(self._connection, account_id)
