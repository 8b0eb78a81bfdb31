"""A store moves from SQLite to PostgreSQL without losing a row."""

from collections.abc import Coroutine, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from buntime.event import AccountEvent, EventType, of_new_session
from buntime.ports import Store
from buntime.session import State
from buntime.stores import moving
from buntime.stores.moving import move
from buntime.stores.postgres.connecting import Place, connect_blocking, place_of
from buntime.stores.postgres.store import PostgresStore
from buntime.stores.sqlite.store import SqliteStore
from buntime.stores.unusable import StoreUnusable
from buntime.usage import Counters, Moment, Reading
from buntime.webhook import SigningSecret, Webhook
from tests.contracts.examples import (
    FULL,
    FULL_LAYER,
    FULL_SNAPSHOT,
    NOW,
    account,
    answer,
    key,
    made_image,
    named,
    session,
    token,
)
from tests.contracts.postgres import JOINED, LOCAL, emptied

pytestmark = pytest.mark.postgres

HOOK = Webhook("whk_one", "acc_one", "https://example.com", (SigningSecret("sealed"),), NOW)


@pytest.fixture
async def place(postgres_url: str) -> Place:
    """No host uses it."""
    await emptied(postgres_url)
    place = place_of(postgres_url)
    with connect_blocking(place) as connection:
        connection.execute("DELETE FROM hosts")
    return place


async def joined(place: Place) -> PostgresStore:
    with connect_blocking(place) as connection:
        connection.execute(JOINED, [LOCAL.host, LOCAL.incarnation])
    return await PostgresStore.open(place, LOCAL.host, lambda: LOCAL)


async def fill(store: Store) -> None:
    await store.add_account(account())
    await store.add_key(replace(key(), name="a\0b"))
    await store.add_webhook(HOOK, None, 9)
    await store.add_session(FULL, answer("k", body=b"x" * 5000), 9, events=(of_new_session(FULL),))
    awake = session("ses_two", called="two")
    await store.add_session(awake, None, 9, reading=reading(NOW))
    await store.change_session(awake, replace(awake, state=State.IDLE), reading=reading(NOW + 60))
    await store.add_session(session("ses_gone"), None, 9, events=[happened("evt_gone")])
    await store.remove_session("ses_gone")
    await store.add_preview_token(token("t", "ses_two", 8080), None, 9)
    await store.add_layer(FULL_LAYER)
    await store.add_session(session("ses_one"), None, 9)
    await store.add_snapshot(FULL_SNAPSHOT, None, None, 9)
    await store.add_snapshot(replace(FULL_SNAPSHOT, id="snp_two"), None, None, 9)
    await store.add_made_image(made_image(layer="lay_full"), named(), None, None, 9)


def reading(at: int) -> Reading:
    return Reading(Moment(at * 1000, "boot", at * 1000), Counters("sb_ses_two", at, 0, 1 << 20), disk=1 << 20)


def happened(name: str) -> AccountEvent:
    return AccountEvent(name, "acc_one", EventType.EXECUTION_COMPLETED, NOW, "ses_one", {"a": "\0\ud800"})


async def by_id[T](rows: Coroutine[object, object, Sequence[T]]) -> list[T]:
    return sorted(await rows, key=lambda one: str(getattr(one, "id", one)))


async def everything(store: Store) -> dict[str, object]:
    return {
        "accounts": await store.list_accounts(),
        "keys": (await store.list_keys(), await store.find_key(key().hash)),
        "sessions": await by_id(store.all_sessions()),
        "counts": (await store.count_sessions("acc_one"), await store.count_states()),
        "tokens": await store.find_preview_token(token().hash),
        "answers": await store.find_answer("acc_one", "k"),
        "snapshots": await store.list_snapshots("acc_one", now=NOW),
        "layers": await store.all_layers(),
        "images": (await store.all_made_images(), await store.list_images("acc_one"), await store.used_images()),
        "windows": await store.list_windows("acc_one", 0, 99),
        "days": await store.usage_by_day("acc_one", 0, 99_999),
        "months": await store.usage_by_session("acc_one", 0, 99_999, "", 99),
        "webhooks": await store.list_webhooks("acc_one"),
        "events": await store.list_events(None),
        "deliveries": await store.list_deliveries("whk_one", 99, 0),
        "due": await store.due_deliveries("whk_one", NOW, 99),
    }


async def moved_from(path: Path, place: Place) -> tuple[dict[str, object], dict[str, object]]:
    """What the store has before and after."""
    file = await SqliteStore.open(path)
    await fill(file)
    before = await everything(file)
    await file.close()
    assert move(path, place) > 20
    store = await joined(place)
    after = await everything(store)
    await store.close()
    return before, after


async def test_everything_is_there_after_the_move(store_path: Path, place: Place) -> None:
    before, after = await moved_from(store_path, place)
    assert after == before
    assert not store_path.exists()


async def test_numbers_go_on_after_the_move(store_path: Path, place: Place) -> None:
    await moved_from(store_path, place)
    store = await PostgresStore.open(place, LOCAL.host, lambda: LOCAL)
    last = (await store.list_events(None))[-1].number
    await store.add_events([happened("evt_new")])
    assert [found.number > last for found in await store.list_events(None, after=last)] == [True]
    await store.add_snapshot(replace(FULL_SNAPSHOT, id="snp_new"), None, None, 9)
    page, _ = await store.list_snapshots("acc_one", now=NOW)
    assert page[0].id == "snp_new"
    await store.close()


async def test_a_move_that_was_killed_is_finished_by_the_next(
    store_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = await SqliteStore.open(store_path)
    await fill(file)
    await file.close()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(moving, "_go_on_counting", killed)  # before the commit
        with pytest.raises(KeyboardInterrupt):
            move(store_path, place)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)  # after it
        with pytest.raises(KeyboardInterrupt):
            move(store_path, place)
    assert move(store_path, place) > 20
    with pytest.raises(StoreUnusable, match="moved before"):
        move(store_path, place)


async def test_a_database_that_is_in_use_or_not_empty_is_refused(store_path: Path, place: Place) -> None:
    await (await SqliteStore.open(store_path)).close()
    store = await joined(place)
    with pytest.raises(StoreUnusable, match="Stop it first"):
        move(store_path, place)
    await store.add_account(account("acc_other"))
    await store.close()
    with connect_blocking(place) as connection:
        connection.execute("DELETE FROM hosts")
    with pytest.raises(StoreUnusable, match="not empty"):
        move(store_path, place)
    assert store_path.exists()
