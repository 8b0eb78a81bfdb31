"""The contract of `ports.Store` about events, for the fake and the real one alike."""

import asyncio
import errno
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from buntime.account import AccountStatus
from buntime.cause import Cause
from buntime.errors import (
    IdempotencyInProgress,
    ResourceLimitExceeded,
    SessionLimitExceeded,
    StaleSession,
    Unavailable,
)
from buntime.event import AccountEvent, EventType, of_change, of_new_key, of_new_session, of_revoked_key, of_snapshot
from buntime.ports import NumberedEvent, Store
from buntime.session import Event, State
from buntime.stores import waiting
from buntime.stores.sqlite import database, events
from buntime.stores.sqlite.store import SqliteStore
from tests.contracts.examples import NOW, account, answer, key, layer, session, snapshot
from tests.waiting import PATIENCE, REST, eventually


def event(
    name: str = "evt_one",
    account: str = "acc_one",
    what: EventType = EventType.EXECUTION_COMPLETED,
    time: int = NOW,
    session: str | None = "ses_one",
) -> AccountEvent:
    cause = Cause("key", account, "req_1", "key_one", "192.0.2.1")
    return AccountEvent(name, account, what, time, session, {"exitCode": 0, "deep": [{"a": None}, "Zoë ✨"]}, cause)


async def told(store: Store, account_id: str | None = "acc_one", after: int = 0) -> list[AccountEvent]:
    return [numbered.event for numbered in await store.list_events(account_id, after=after, limit=1000)]


async def noted(store: Store, *events: AccountEvent) -> Sequence[NumberedEvent]:
    """Notes them, waits until they are stored, and returns all."""
    wanted = len(await store.list_events(None, limit=1000)) + len(events)
    store.note_events(events)
    async with asyncio.timeout(PATIENCE):
        while True:
            found = await store.list_events(None, limit=1000)
            if len(found) >= wanted:
                return found
            await asyncio.sleep(REST)


# together with a change


async def test_a_new_session_and_its_event_are_stored_together(store: Store) -> None:
    created = of_new_session(session())
    await store.add_session(session(), None, 1, events=(created,))
    assert await told(store) == [created]


async def test_a_session_that_is_refused_is_not_told_of(store: Store) -> None:
    await store.add_session(session(), None, 1)
    with pytest.raises(SessionLimitExceeded):
        await store.add_session(session("ses_two"), None, 1, events=(of_new_session(session("ses_two")),))
    await store.add_answer(answer())
    with pytest.raises(IdempotencyInProgress):
        await store.add_session(session("ses_two"), answer(), 2, events=(of_new_session(session("ses_two")),))
    assert await told(store) == []


async def test_a_new_state_and_its_event_are_stored_together(store: Store) -> None:
    await store.add_session(session(), None, 1)
    idle = session().after(Event.SUSPEND)
    events = of_change(session(), idle, NOW + 5)
    await store.change_session(session(), idle, None, events=events)
    assert await told(store) == list(events)
    with pytest.raises(StaleSession):
        await store.change_session(session(), idle, None, events=of_change(session(), idle, NOW + 6))
    assert await told(store) == list(events)


async def test_events_outlive_their_session(store: Store) -> None:
    await store.add_session(session(), None, 1)
    gone = await store.change_session(session(), session().after(Event.DELETE), None, events=(event(),))
    assert gone.state is State.DELETING
    await store.remove_session(session().id)
    assert await told(store) == [event()]


async def test_a_snapshot_and_its_event_are_stored_together(store: Store) -> None:
    await store.add_session(session(), None, 1)
    created = of_snapshot(snapshot())
    await store.add_snapshot(snapshot(), layer(), None, 1, (created,))
    with pytest.raises(ResourceLimitExceeded):
        await store.add_snapshot(snapshot("snp_two"), layer("lay_two"), None, 1, (of_snapshot(snapshot("snp_two")),))
    assert await told(store) == [created]


async def test_a_restore_and_its_events_are_stored_together(store: Store) -> None:
    await store.add_session(session(), None, 1)
    before = snapshot(is_automatic=True)
    await store.restore_session(session(), session().down(), before, layer(), None, events=(event(),))
    assert await told(store) == [event()]
    with pytest.raises(StaleSession):
        await store.restore_session(session(), session(), before, layer("lay_two"), None, events=(event("evt_two"),))
    assert await told(store) == [event()]


async def test_a_key_and_its_events_are_stored_together(store: Store) -> None:
    await store.add_account(account())
    created, revoked = of_new_key(key()), of_revoked_key(key(), NOW + 1)
    await store.add_key(key(), None, 1, (created,))
    with pytest.raises(ResourceLimitExceeded):
        await store.add_key(key("key_two"), None, 1, (of_new_key(key("key_two")),))
    assert await store.revoke_key(key().id, NOW + 1, (revoked,))
    assert not await store.revoke_key(key().id, NOW + 2, (replace(revoked, id="evt_two"),))
    assert not await store.revoke_key("key_none", NOW + 2, (replace(revoked, id="evt_three"),))
    assert await told(store) == [created, revoked]


# reading


async def test_noted_events_are_read_in_their_order_soon(store: Store) -> None:
    events = [event(f"evt_{n}") for n in range(3)]
    assert [numbered.event for numbered in await noted(store, *events)] == events


async def test_a_noted_event_comes_before_those_of_a_later_change(store: Store) -> None:
    store.note_events([event("evt_run")])
    created = of_new_session(session())
    await store.add_session(session(), None, 1, events=(created,))
    assert await told(store) == [event("evt_run"), created]


async def test_who_noted_events_is_told_when_they_are_stored(store: Store) -> None:
    stored: list[str] = []
    store.note_events([event()], lambda: stored.append("one"))
    store.note_events([], lambda: stored.append("none"))
    await store.add_session(session(), None, 1)
    await eventually(lambda: sorted(stored) == ["none", "one"])
    assert await told(store) == [event()]


async def test_the_end_of_a_process_does_not_come_after_that_of_its_session(store: Store) -> None:
    await store.add_session(session(), None, 1)
    stored: list[str] = []
    deleted, gone = event("evt_deleted", what=EventType.SESSION_DELETED), session().after(Event.DELETE)
    store.note_events([event("evt_before", what=EventType.PROCESS_EXITED)])
    deleting = asyncio.ensure_future(store.change_session(session(), gone, None, events=(deleted,)))
    await asyncio.sleep(0)
    store.note_events([event("evt_after", what=EventType.PROCESS_EXITED)], lambda: stored.append("after"))
    await deleting
    store.note_events([event("evt_late", what=EventType.PROCESS_EXITED)], lambda: stored.append("late"))
    await eventually(lambda: stored == ["after", "late"])
    await store.remove_session("ses_one")
    store.note_events([event("evt_gone", what=EventType.PROCESS_EXITED)], lambda: stored.append("gone"))
    await eventually(lambda: len(stored) == 3)
    assert [each.id for each in await told(store)] == ["evt_before", "evt_deleted"]


async def test_events_of_a_session_that_are_stored_are_found_by_their_ids(store: Store) -> None:
    await noted(store, event("evt_a"), event("evt_b"), event("evt_c", session="ses_two"))
    assert await store.stored_events("ses_one", ["evt_b", "evt_c", "evt_d"]) == {"evt_b"}
    assert await store.stored_events("ses_one", []) == set()
    assert await store.stored_events("ses_none", ["evt_a"]) == set()


async def test_an_event_that_is_not_json_is_refused_at_once(store: Store) -> None:
    with pytest.raises(TypeError):
        store.note_events([replace(event(), data={"a": object()})])
    assert [numbered.event for numbered in await noted(store, event())] == [event()]


async def test_events_are_read_of_one_account_a_session_or_a_type(store: Store) -> None:
    one, two = event("evt_a"), event("evt_b", session="ses_two")
    three, other = event("evt_c", what=EventType.SESSION_IDLE), event("evt_d", account="acc_two")
    await noted(store, one, two, three, other)

    async def found(account_id: str | None, session: str | None = None, what: EventType | None = None) -> list[str]:
        return [each.event.id for each in await store.list_events(account_id, session=session, what=what)]

    assert await found("acc_one") == ["evt_a", "evt_b", "evt_c"]
    assert await found("acc_one", session="ses_one") == ["evt_a", "evt_c"]
    assert await found("acc_two", session="ses_two") == []
    assert await found("acc_one", what=EventType.SESSION_IDLE) == ["evt_c"]
    assert await found("acc_one", session="ses_two", what=EventType.SESSION_IDLE) == []
    assert await found(None) == ["evt_a", "evt_b", "evt_c", "evt_d"]


async def test_pages_follow_one_another(store: Store) -> None:
    await noted(store, *(event(f"evt_{n}") for n in range(5)))
    read, after = [], 0
    while page := await store.list_events("acc_one", after=after, limit=2):
        assert len(page) <= 2
        read += [numbered.event.id for numbered in page]
        after = page[-1].number
    assert read == [f"evt_{n}" for n in range(5)]
    assert await store.newest_event("acc_one") == after
    assert await store.newest_event("acc_none") == 0


async def test_a_reader_that_goes_on_from_the_last_number_misses_nothing(store: Store) -> None:
    """Whatever commits meanwhile, and in whatever groups."""

    async def write(lane: int) -> None:
        for n in range(20):
            if n % 3:
                added = session(f"ses_{lane}_{n}")
                await store.add_session(added, None, 1000, events=(of_new_session(added),))
            else:
                store.note_events([event(session=f"ses_{lane}_{n}")])
                await asyncio.sleep(0)

    read: list[str | None] = []
    after = 0

    async def catch_up() -> None:
        nonlocal after
        for numbered in await store.list_events("acc_one", after=after, limit=7):
            assert numbered.number > after
            after = numbered.number
            read.append(numbered.event.session)

    writing = asyncio.gather(*(write(lane) for lane in range(4)))
    while not writing.done():
        await catch_up()
        await asyncio.sleep(0)
    await writing
    async with asyncio.timeout(PATIENCE):
        while len(read) < 80:
            await catch_up()
            await asyncio.sleep(REST)
    assert sorted(map(str, read)) == sorted(f"ses_{lane}_{n}" for lane in range(4) for n in range(20))


# for how long


async def test_old_events_are_dropped(store: Store) -> None:
    await noted(store, event("evt_a"), event("evt_b", time=NOW + 1), event("evt_c", account="acc_two"))
    assert await store.drop_events(NOW + 1, 100) == 2
    assert [each.id for each in await told(store, None)] == ["evt_b"]
    assert await store.drop_events(NOW + 1, 100) == 0


async def test_the_newest_event_of_all_accounts_has_a_time(store: Store) -> None:
    assert await store.newest_event_time() is None
    await noted(store, event("evt_a", time=NOW + 9), event("evt_b", account="acc_two", time=NOW + 1))
    assert await store.newest_event_time() == NOW + 1


async def test_an_account_keeps_its_newest_events_alone(store: Store) -> None:
    await noted(store, *(event(f"evt_{n}") for n in range(5)), event("evt_other", account="acc_two"))
    assert await store.drop_events(NOW, 2) == 3
    assert [each.id for each in await told(store, None)] == ["evt_3", "evt_4", "evt_other"]


async def test_the_number_of_a_dropped_event_is_not_used_again(store: Store) -> None:
    (first,) = await noted(store, event())
    await store.drop_events(NOW + 1, 100)
    (second,) = await noted(store, event("evt_two"))
    assert second.number > first.number


async def test_the_events_of_a_deleted_account_stay_for_their_time(store: Store) -> None:
    await store.add_account(account())
    await noted(store, event())
    await store.set_account_status("acc_one", AccountStatus.DELETED)
    await store.drop_kept_of("acc_one")
    assert await told(store) == [event()]


# the file


async def test_noted_events_are_stored_when_the_store_closes(store_path: Path) -> None:
    store = await SqliteStore.open(store_path)
    store.note_events([event()])
    await store.close()
    store.note_events([event("evt_late")])
    store = await SqliteStore.open(store_path)
    try:
        assert await told(store) == [event()]
    finally:
        await store.close()


async def test_what_is_dropped_while_nothing_can_be_stored_is_not_called_stored(
    store_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.02)
    monkeypatch.setattr(waiting, "MOST_NOTED", 2)
    stored: list[str] = []
    store = await SqliteStore.open(store_path)
    try:
        with closing(database.connect(store_path)) as other, database.transaction(other):
            for name in ("evt_a", "evt_b", "evt_c"):
                store.note_events([event(name)], partial(stored.append, name))
            with pytest.raises(Unavailable):
                await store.add_account(account())
        await store.add_account(account())
        await eventually(lambda: stored == ["evt_b", "evt_c"])
        assert [each.id for each in await told(store)] == ["evt_b", "evt_c"]
    finally:
        await store.close()


async def test_a_caller_that_fails_holds_up_neither_changes_nor_other_callers(store_path: Path) -> None:
    stored: list[str] = []

    def fail() -> None:
        raise OSError(errno.EIO, "the disk")

    store = await SqliteStore.open(store_path)
    try:
        store.note_events([event()], fail)
        store.note_events([event("evt_two")], lambda: stored.append("two"))
        async with asyncio.timeout(PATIENCE):
            await store.add_account(account())
        await eventually(lambda: stored == ["two"])
    finally:
        await store.close()


async def test_a_caller_that_blocks_holds_up_no_change(store_path: Path) -> None:
    changed, waited = threading.Event(), list[bool]()
    store = await SqliteStore.open(store_path)
    try:
        store.note_events([event()], lambda: waited.append(changed.wait(PATIENCE)))
        await store.add_account(account())
        changed.set()
    finally:
        await store.close()
    assert waited == [True]


async def test_many_old_events_are_dropped_in_several_commits(store_path: Path) -> None:
    store = await SqliteStore.open(store_path)
    try:
        store.note_events([event(f"evt_{n}", time=NOW + n % 2) for n in range(1200)])
        await store.add_session(session(), None, 1)
        assert await store.drop_events(NOW, 10) == 1190
        assert await store.drop_events(NOW + 2, 10) == 10
    finally:
        await store.close()


@pytest.mark.parametrize(
    ("selected", "index"),
    [
        ({}, "events_by_account (account=? AND rowid>?)"),
        ({"session": "ses_a"}, "events_by_session (session=? AND rowid>?)"),
        ({"what": EventType.SESSION_IDLE}, "events_by_type (account=? AND type=? AND rowid>?)"),
        (
            {"session": "ses_a", "what": EventType.SESSION_IDLE},
            "events_by_session_type (session=? AND type=? AND rowid>?)",
        ),
    ],
)
async def test_an_index_finds_the_events_of_each_selection(
    store_path: Path, selected: Mapping[str, Any], index: str
) -> None:
    store = await SqliteStore.open(store_path)
    await store.close()
    with closing(database.connect(store_path)) as connection:
        asked: list[str] = []
        connection.set_trace_callback(asked.append)
        wanted: dict[str, Any] = {"session": None, "what": None, **selected}
        events.list_events(connection, "acc_one", 1, limit=100, **wanted)
        connection.set_trace_callback(None)
        plan = [row["detail"] for row in connection.execute(f"EXPLAIN QUERY PLAN {asked[0]}")]
    assert plan == [f"SEARCH events USING INDEX {index}"]
