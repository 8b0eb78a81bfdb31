"""What reads of webhooks cost: removed ones, and those that are off, cost others nothing."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from buntime.stores.sqlite import database, deliveries, events, webhooks
from tests.contracts.examples import NOW
from tests.contracts.test_store_webhooks import told, webhook

type Work = Callable[[sqlite3.Connection], object]
MANY = 300


@pytest.fixture
def connection(store_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(database.connect(store_path)) as connection:
        yield connection


def steps(connection: sqlite3.Connection, work: Work) -> int:
    """The number of instructions of SQLite's virtual machine. What the work changes is undone."""
    count = 0

    def step() -> None:
        nonlocal count
        count += 1

    connection.execute("BEGIN")
    connection.set_progress_handler(step, 1)
    work(connection)
    connection.set_progress_handler(None, 1)
    connection.execute("ROLLBACK")
    return count


def add_removed(connection: sqlite3.Connection) -> None:
    """Removed webhooks that still have deliveries, of the same account as the others."""
    for number in range(MANY):
        webhooks.add_webhook(connection, webhook(f"whk_old_{number}"), 10_000)
    events.add_events(connection, [told("evt_old")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(webhooks, "MOST_AT_ONCE", 0)
        for number in range(MANY):
            assert webhooks.remove_webhook(connection, f"whk_old_{number}")


@pytest.mark.parametrize(
    "work",
    [
        lambda connection: events.add_events(connection, [told("evt_new")]),
        lambda connection: webhooks.list_webhooks(connection, "acc_one"),
        lambda connection: webhooks.add_webhook(connection, webhook("whk_new"), 10),
        lambda connection: webhooks.remove_webhooks_of(connection, "acc_one"),
        lambda connection: deliveries.waiting_webhooks(connection, NOW),
        deliveries.delivery_numbers,
    ],
    ids=["event", "list", "create", "delete all", "look", "metrics"],
)
def test_removed_webhooks_cost_others_nothing(connection: sqlite3.Connection, work: Work) -> None:
    webhooks.add_webhook(connection, webhook(), 10_000)
    events.add_events(connection, [told("evt_first")])
    before = steps(connection, work)
    add_removed(connection)
    events.add_events(connection, [])
    connection.execute("DELETE FROM deliveries WHERE webhook = 'whk_one' AND event > 1")
    assert steps(connection, work) < before + MANY


def test_pending_deliveries_of_webhooks_that_are_off_are_not_read(connection: sqlite3.Connection) -> None:
    webhooks.add_webhook(connection, webhook("whk_off"), 10)
    events.add_events(connection, [told(f"evt_{number}") for number in range(MANY * 10)])
    assert webhooks.change_webhook(connection, replace(webhook("whk_off"), off="asked"), 1)
    webhooks.add_webhook(connection, webhook(), 10)
    events.add_events(connection, [told("evt_last")])
    for _ in range(2):
        assert deliveries.delivery_numbers(connection).pending == 1
        assert steps(connection, deliveries.delivery_numbers) < MANY
        connection.execute("ANALYZE")  # an operator may; the plan must not change with it


def test_one_commit_of_a_sweep_drops_few_webhooks(connection: sqlite3.Connection) -> None:
    add_removed(connection)
    connection.execute("DELETE FROM deliveries")
    assert deliveries.drop_removed(connection, 100) == 100
    assert connection.execute("SELECT count(*) FROM webhooks").fetchone()[0] == MANY - 100


def test_a_removed_webhook_with_few_deliveries_leaves_no_row(connection: sqlite3.Connection) -> None:
    webhooks.add_webhook(connection, webhook(), 1)
    events.add_events(connection, [told(f"evt_{number}") for number in range(webhooks.MOST_AT_ONCE)])
    assert webhooks.remove_webhook(connection, "whk_one")
    for table in ("webhooks", "deliveries"):
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] == 0


@pytest.mark.parametrize(
    ("query", "plan"),
    [
        (deliveries._WAITING, "SCAN webhooks USING INDEX webhooks_on"),
        (deliveries._PENDING, "SEARCH deliveries USING COVERING INDEX deliveries_due (webhook=?)"),
        (deliveries._OFF, "SEARCH webhooks USING COVERING INDEX webhooks_off (off>?)"),
        (deliveries._DROP_REMOVED, "SEARCH deliveries USING COVERING INDEX deliveries_by_webhook (webhook=?)"),
        (deliveries._DROP_EMPTY, "SCAN webhooks USING COVERING INDEX webhooks_removed"),
    ],
    ids=["look", "pending", "off", "drop deliveries", "drop webhooks"],
)
def test_an_index_answers(connection: sqlite3.Connection, query: str, plan: str) -> None:
    values: dict[str, int] | tuple[int, ...] = {"now": NOW} if ":now" in query else (1,) * query.count("?")
    found = [row["detail"] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", values)]
    assert plan in found
