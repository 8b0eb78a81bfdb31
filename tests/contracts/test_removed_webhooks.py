"""Deleting a webhook with many deliveries: at once for who asks, then a few rows in each commit, also after a crash."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from buntime.account import Account, AccountStatus
from buntime.stores.rows.webhooks import webhook_row
from buntime.stores.sqlite import database, deliveries, events, told, webhooks
from buntime.stores.sqlite.accounts import set_account_status
from buntime.stores.sqlite.store import SqliteStore
from buntime.stores.sqlite.webhooks import remove_webhooks_of
from buntime.webhook import DeliveryState
from tests.contracts.examples import NOW, session
from tests.contracts.test_sqlite_store import migrations_until
from tests.contracts.test_store_webhooks import happens, webhook
from tests.contracts.test_store_webhooks import told as event_of

EVENTS = 25


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(told, "DROP_AT_ONCE", 10)
    monkeypatch.setattr(webhooks, "MOST_AT_ONCE", 10)


@contextmanager
def file(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(database.connect(path)) as connection:
        yield connection


def rows(path: Path) -> tuple[int, int]:
    """Webhooks and deliveries in the file."""
    with file(path) as connection:
        counts = [
            connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in ("webhooks", "deliveries")
        ]
    return counts[0], counts[1]


async def filled(path: Path) -> SqliteStore:
    """Two webhooks, and as many deliveries to each as there are events."""
    store = await SqliteStore.open(path)
    await store.add_account(Account("acc_one", "free", NOW))
    for name in ("whk_one", "whk_two"):
        await store.add_webhook(webhook(name), None, 2)
    store.note_events([replace(event_of(f"evt_{number}"), data={}) for number in range(EVENTS - 1)])
    await happens(store, session())
    assert rows(path) == (2, 2 * EVENTS)
    return store


async def test_a_removed_webhook_leaves_many_deliveries_to_the_sweep_and_no_secrets(store_path: Path) -> None:
    store = await filled(store_path)
    assert await store.remove_webhook("whk_one")
    assert rows(store_path) == (2, 2 * EVENTS)
    with file(store_path) as connection:
        (found,) = connection.execute("SELECT url, secrets FROM webhooks WHERE id = 'whk_one'").fetchall()
        assert tuple(found) == ("", "[]")
    await store.drop_removed_webhooks()
    assert rows(store_path) == (1, EVENTS)
    await store.close()


async def test_a_sweep_that_was_killed_is_finished_by_the_next(store_path: Path) -> None:
    store = await filled(store_path)
    assert await store.remove_webhook("whk_one")
    await store.close()
    with file(store_path) as connection, database.transaction(connection):
        assert deliveries.drop_removed(connection, 10) == 10  # and then the server is killed
    assert rows(store_path) == (2, 2 * EVENTS - 10)
    store = await SqliteStore.open(store_path)
    await store.drop_removed_webhooks()
    assert rows(store_path) == (1, EVENTS)
    await store.close()


async def test_each_commit_of_a_sweep_is_small(store_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dropped: list[int] = []
    drop = deliveries.drop_removed

    def counted(connection: sqlite3.Connection, most: int) -> int:
        dropped.append(drop(connection, most))
        return dropped[-1]

    monkeypatch.setattr(deliveries, "drop_removed", counted)
    store = await filled(store_path)
    assert await store.remove_webhook("whk_one")
    await store.drop_removed_webhooks()
    assert dropped == [10, 10, 5]
    await store.close()


async def test_the_webhooks_of_a_deleted_account_go_the_same_way(store_path: Path) -> None:
    store = await filled(store_path)
    with file(store_path) as connection, database.transaction(connection):  # as the command line does
        set_account_status(connection, "acc_one", AccountStatus.DELETED)
        remove_webhooks_of(connection, "acc_one")
    assert await store.list_webhooks("acc_one") == []
    await store.drop_removed_webhooks()
    assert rows(store_path) == (0, 0)
    await store.close()


async def test_a_delivery_of_a_removed_webhook_is_not_settled_before_the_sweep(store_path: Path) -> None:
    store = await filled(store_path)
    one = (await store.due_deliveries("whk_one", NOW, 1)).found[0].delivery
    assert await store.remove_webhook("whk_one")
    assert rows(store_path) == (2, 2 * EVENTS)
    assert not await store.settle_delivery(replace(one, attempts=1, tried_at=NOW))
    await store.close()


async def test_a_store_of_version_16_keeps_its_webhooks_and_deliveries(
    store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(database, "MIGRATIONS", migrations_until(16, tmp_path / "old"))
        with file(store_path) as connection:
            assert connection.execute("PRAGMA user_version").fetchone()[0] == 16
            connection.execute(webhooks._ADD, webhook_row(webhook()))
            events.add_events(connection, [event_of("evt_one"), event_of("evt_two")])
    store = await SqliteStore.open(store_path)
    assert await store.get_webhook("whk_one") == webhook()
    found, total = await store.list_deliveries("whk_one", 10, 0)
    assert ([one.event.id for one in found], total) == (["evt_two", "evt_one"], 2)
    assert [one.delivery.redelivery for one in found] == [0, 0]
    assert await store.settle_delivery(replace(found[1].delivery, state=DeliveryState.DELIVERED, tried_at=NOW))
    assert await store.remove_webhook("whk_one")
    assert rows(store_path) == (0, 0)
    await store.close()
