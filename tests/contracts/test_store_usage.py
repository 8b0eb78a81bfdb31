"""The contract of `ports.Store` for usage."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from buntime.errors import SessionLimitExceeded, StaleSession
from buntime.ports import Store
from buntime.session import Event, SavedVolume, Session, State
from buntime.usage import (
    DAY_MS,
    NOTHING,
    Amounts,
    Counters,
    Moment,
    Reading,
    Runs,
    Window,
    first_day_of,
    month_of,
)
from tests.contracts.examples import NOW, answer, layer, session, snapshot

MB = 1 << 20
DAY = NOW * 1000 // DAY_MS
ALL = (0, 100_000)  # days


def read(seconds: float = 0, cpu: int = 0, runs: int = 0, sandbox: str = "sb_ses_one") -> Reading:
    moment = Moment(1000 * NOW + int(1000 * seconds), "boot", int(1000 * seconds))
    return Reading(moment, Counters(sandbox, cpu, 0, 0), runs=Runs("server", runs))


async def windows(store: Store, account: str = "acc_one", after: int = 0) -> Sequence[Window]:
    return (await store.list_windows(account, after, 1000))[0]


async def total(store: Store, session: str | None = None, account: str = "acc_one") -> Amounts:
    days = await store.usage_by_day(account, *ALL, session)
    return sum((amounts for _, amounts in days), NOTHING)


async def slept(store: Store, stored: Session, reading: Reading | None) -> Session:
    return await store.change_session(stored, stored.down(), None, reading=reading)


async def test_a_change_of_state_closes_the_window_and_opens_the_next(store: Store) -> None:
    await store.add_session(session(), None, 1, reading=read())
    assert await windows(store) == []
    idle = await store.change_session(session(), session().after(Event.SUSPEND), None, reading=read(10, cpu=7, runs=2))
    await store.change_session(idle, idle.after(Event.RESUME), None, reading=read(15, cpu=8, runs=2))
    begin = 1000 * NOW
    assert await windows(store) == [
        Window(
            "ses_one", "acc_one", 1, State.ACTIVE, begin, begin + 10_000, Amounts(active=10_000, cpu=7, executions=2)
        ),
        Window("ses_one", "acc_one", 2, State.IDLE, begin + 10_000, begin + 15_000, Amounts(idle=5000, cpu=1)),
    ]


async def test_notes_add_to_the_open_window_and_to_the_days(store: Store) -> None:
    await store.add_session(session(), None, 1, reading=read())
    for seconds in (60, 120, 180):
        await store.note_usage({"ses_one": read(seconds, cpu=seconds)})
    assert await total(store) == Amounts(active=180_000, cpu=180)
    assert await windows(store) == []
    await slept(store, session(), read(200, cpu=200))
    assert [window.amounts for window in await windows(store)] == [Amounts(active=200_000, cpu=200)]
    assert await total(store) == Amounts(active=200_000, cpu=200)


async def test_without_a_reading_a_window_ends_when_it_was_last_noted(store: Store) -> None:
    await store.add_session(session(), None, 1, reading=read())
    await store.note_usage({"ses_one": read(60)})
    await slept(store, session(), None)
    await store.note_usage({"ses_one": read(100)})
    assert [window.amounts for window in await windows(store)] == [Amounts(active=60_000)]
    assert await total(store) == Amounts(active=60_000, deep_sleep=40_000)


async def test_a_change_that_is_refused_closes_nothing(store: Store) -> None:
    await store.add_session(session(), None, 1, reading=read())
    renamed = await store.change_session(session(), replace(session(), name="mine"))
    with pytest.raises(StaleSession):
        await slept(store, session(), read(10))
    assert (await windows(store), await total(store)) == ([], NOTHING)
    await slept(store, renamed, read(20))
    assert [window.amounts for window in await windows(store)] == [Amounts(active=20_000)]


async def test_a_create_that_is_refused_opens_nothing(store: Store) -> None:
    with pytest.raises(SessionLimitExceeded):
        await store.add_session(session(), None, 0, reading=read())
    await store.note_usage({"ses_one": read(60)})
    assert await total(store) == NOTHING


async def test_a_change_of_anything_else_closes_nothing(store: Store) -> None:
    await store.add_session(session(), None, 1, reading=read())
    await store.change_session(session(), replace(session(), metadata={"a": 1}), answer(), reading=read(10))
    assert await windows(store) == []


async def test_another_sandbox_closes_the_window_too(store: Store) -> None:
    await store.add_session(session(), None, 1, reading=read())
    other = replace(session(), sandbox="sb_two")
    begins = replace(read(10, cpu=5), next=Counters("sb_two", 900, 0, 0))
    await store.change_session(session(), other, None, reading=begins)
    await store.note_usage({"ses_one": read(20, cpu=910, sandbox="sb_two")})
    assert [window.amounts for window in await windows(store)] == [Amounts(active=10_000, cpu=5)]
    assert await total(store) == Amounts(active=20_000, cpu=15)


async def test_a_delete_closes_the_last_window(store: Store) -> None:
    await store.add_session(session(), None, 1, reading=read())
    deleting = await store.change_session(session(), session().after(Event.DELETE), None, reading=read(10))
    await store.note_usage({"ses_one": read(60)})
    await store.remove_session(deleting.id)
    await store.note_usage({"ses_one": read(70)})
    assert [window.amounts for window in await windows(store)] == [Amounts(active=10_000)]
    assert await total(store, "ses_one") == Amounts(active=10_000)


async def test_a_restore_closes_the_window(store: Store) -> None:
    await store.add_session(session(), None, 1, reading=read())
    await store.restore_session(
        session(), session().down(), snapshot(is_automatic=True), layer(), None, reading=read(10)
    )
    assert [window.amounts for window in await windows(store)] == [Amounts(active=10_000)]


async def test_what_the_archive_keeps_counts_from_the_change_on(store: Store) -> None:
    await store.add_session(session(), None, 1, reading=read())
    asleep = await slept(store, session(), read(10))
    saved = replace(asleep, saved=SavedVolume("ses_one/1", MB, NOW), archived=True)
    await store.change_session(asleep, saved, None, reading=read(30))
    await store.note_usage({"ses_one": read(40)})
    assert (await total(store)).archived == 10 * 1024


async def test_a_long_window_closes_at_a_note(store: Store) -> None:
    await store.add_session(session(), None, 1, reading=read())
    for minute in range(1, 121):
        await store.note_usage({"ses_one": read(60 * minute, cpu=minute)})
    closed = await windows(store)
    assert [window.ordinal for window in closed] == [1, 2]
    assert all(window.amounts.milliseconds <= 3_600_000 for window in closed)
    assert closed[0].ended_at == closed[1].began_at
    assert (await total(store)).cpu == 120


async def test_a_session_from_before_usage_was_counted_begins_at_its_first_note(store: Store) -> None:
    await store.add_session(session(), None, 1)
    await store.note_usage({"ses_one": read(60, cpu=9), "ses_gone": read(60)})
    await store.note_usage({"ses_one": read(70, cpu=10)})
    assert await total(store) == Amounts(active=10_000, cpu=1)


async def test_a_cursor_meets_each_window_once_however_they_are_stored(store: Store) -> None:
    names = [f"ses_{number}" for number in range(20)]
    for name in names:
        await store.add_session(session(name), None, 100, reading=read(sandbox=f"sb_{name}"))
    changes = [slept(store, session(name), read(10, sandbox=f"sb_{name}")) for name in names]
    running, place = asyncio.gather(*changes), 0
    seen: list[str] = []
    while len(seen) < len(names):
        page, place = await store.list_windows("acc_one", place, 3)
        seen += [window.id for window in page]
        await asyncio.sleep(0)
    await running
    assert sorted(seen) == sorted(f"win_{name.removeprefix('ses_')}_1" for name in names)
    assert await store.list_windows("acc_one", place, 3) == ([], place)
    assert await store.list_windows("acc_one", place + 5, 3) == ([], place)
    assert await store.list_windows("acc_none", 5, 3) == ([], 0)


async def test_accounts_see_their_own_usage(store: Store) -> None:
    for name, owner in (("ses_one", "acc_one"), ("ses_two", "acc_two")):
        await store.add_session(session(name, owner), None, 1, reading=read(sandbox=f"sb_{name}"))
        await slept(store, session(name, owner), read(10, sandbox=f"sb_{name}"))
    assert [window.session for window in await windows(store)] == ["ses_one"]
    assert await total(store, "ses_two") == NOTHING
    found, _ = await store.usage_by_session("acc_two", *ALL, "", 10)
    assert [name for name, _ in found] == ["ses_two"]
    assert await total(store, account="acc_none") == NOTHING


async def test_days_are_those_that_are_asked_for(store: Store) -> None:
    await store.add_session(session(), None, 1, reading=read())
    await slept(store, session(), read())
    hours = 3600 * 24 * 3
    await store.note_usage({"ses_one": read(hours)})
    found = await store.usage_by_day("acc_one", DAY + 1, DAY + 2)
    assert found == [(DAY + 1, Amounts(deep_sleep=DAY_MS)), (DAY + 2, Amounts(deep_sleep=DAY_MS))]
    assert await store.usage_by_day("acc_one", DAY + 1, DAY + 2, "ses_one") == found
    assert (await total(store)).deep_sleep == 1000 * hours


async def test_sessions_come_in_pages_by_id(store: Store) -> None:
    names = ["ses_a", "ses_b", "ses_c"]
    for name in names:
        await store.add_session(session(name), None, 9, reading=read(sandbox=f"sb_{name}"))
        await store.note_usage({name: read(60, sandbox=f"sb_{name}")})
    used = [(name, Amounts(active=60_000)) for name in names]
    assert await store.usage_by_session("acc_one", *ALL, "", 2) == (used[:2], "ses_b")
    assert await store.usage_by_session("acc_one", *ALL, "ses_b", 2) == (used[2:], None)
    assert await store.usage_by_session("acc_one", 0, DAY - 1, "", 2) == ([], None)


async def test_sessions_of_some_days_are_found_among_many(store: Store) -> None:
    names = [f"ses_{number:03}" for number in range(90)]
    for name in names:
        later = 86_400 * 5 if name in ("ses_030", "ses_031", "ses_089") else 0
        reading = read(later, sandbox=f"sb_{name}")
        await store.add_session(session(name), None, 100, reading=reading)
        await store.note_usage({name: read(later + 60, sandbox=f"sb_{name}")})
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        page, after = await store.usage_by_session("acc_one", DAY + 4, DAY + 6, after, 2)
        assert len(page) <= 2
        found += [name for name, _ in page]
    assert found == ["ses_030", "ses_031", "ses_089"]


async def test_sessions_and_days_add_up_to_the_same_over_any_months(store: Store) -> None:
    await store.add_session(session(), None, 1, reading=read())
    asleep = await slept(store, session(), read(100, cpu=7))
    await store.note_usage({asleep.id: read(86_400 * 100)})
    for first, last in ((DAY, DAY + 100), (DAY + 1, DAY + 50), (DAY + 20, DAY + 21), (DAY + 13, DAY + 41), (0, 90_000)):
        days = await store.usage_by_day("acc_one", first, last)
        page, _ = await store.usage_by_session("acc_one", first, last, "", 9)
        assert page == [("ses_one", sum((used for _, used in days), NOTHING))]


async def test_counters_of_a_sandbox_that_the_session_left_are_not_taken_for_those_of_the_next(store: Store) -> None:
    await store.add_session(session(), None, 1, reading=read())
    other = replace(session(), sandbox="sb_two")
    begins = replace(read(10, cpu=5), next=Counters("sb_two", 900, 0, 0))
    await store.change_session(session(), other, None, reading=begins)
    await store.note_usage({"ses_one": read(20, cpu=6)})  # was read before the change
    await store.note_usage({"ses_one": read(30, cpu=940, sandbox="sb_two")})
    assert await total(store) == Amounts(active=30_000, cpu=45)


async def test_the_newest_window_is_the_one_that_ended_last(store: Store) -> None:
    assert await store.newest_window_end() is None
    await store.add_session(session(), None, 9, reading=read())
    assert await store.newest_window_end() is None
    asleep = await slept(store, session(), read(100))
    await store.change_session(asleep, asleep.after(Event.WAKE), None, reading=read(50))
    assert await store.newest_window_end() == 1000 * (NOW + 100)


async def test_dropping_old_usage_keeps_the_places_of_the_rest(store: Store) -> None:
    await store.add_session(session(), None, 1, reading=read())
    asleep = await slept(store, session(), read(10))
    awake = await store.change_session(asleep, asleep.after(Event.WAKE), None, reading=read(3 * 86400))
    await slept(store, awake, read(3 * 86400 + 5))
    month = first_day_of(month_of(DAY))
    assert await store.drop_usage(DAY + 1) > 0
    assert [window.ordinal for window in await windows(store)] == [2, 3]
    assert [window.ordinal for window in await windows(store, after=2)] == [3]
    assert [day for day, _ in await store.usage_by_day("acc_one", *ALL)] == [DAY, DAY + 1, DAY + 2, DAY + 3]
    assert await store.drop_usage(DAY + 1) == 0
    assert await store.drop_usage(month + 40) > 0
    assert await store.usage_by_day("acc_one", *ALL) == []
    assert await store.usage_by_session("acc_one", *ALL, "", 9) == ([], None)
