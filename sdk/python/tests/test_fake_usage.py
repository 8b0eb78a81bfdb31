"""The fake's usage, as users' tests use it."""

from datetime import UTC, date, datetime, timedelta

import pytest
from buntime_sdk import CursorPages, InvalidRequest, SessionNotFound
from buntime_sdk.testing import AsyncFakeBuntime, FakeBuntime

NOW = datetime(2024, 1, 19, 10, 30, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


def test_each_state_has_its_seconds_and_each_change_a_window() -> None:
    clock = Clock()
    fake = FakeBuntime(clock=clock)
    session = fake.sessions.create()
    fake.on_execute("console.log(1)", "1\n")
    session.execute("console.log(1)")
    clock.now += HOUR
    session.sleep()
    clock.now += 2 * HOUR
    session.sleep("deep-sleep")
    clock.now += 3 * HOUR
    session.delete()
    total = fake.usage.get().total
    assert (total.active, total.idle, total.deep_sleep, total.executions) == (3600, 7200, 10800, 1)
    assert total.weighted_seconds == 3600 + 1800 + 216
    windows = list(fake.usage.windows())
    assert [window.state for window in windows] == ["active", "idle", "deep-sleep"]
    assert [window.executions for window in windows] == [1, 0, 0]
    assert (windows[0].since, windows[0].until, windows[1].since) == (NOW, NOW + HOUR, NOW + HOUR)


def test_usage_is_shared_among_days_and_sessions() -> None:
    clock = Clock()
    fake = FakeBuntime(clock=clock)
    one = fake.sessions.create(ttl=86_400)
    clock.now += 12 * HOUR
    two = fake.sessions.create()
    clock.now += 2 * HOUR
    days = fake.usage.get(since=date(2024, 1, 19), until=date(2024, 1, 21), group_by="day").groups
    assert [(day.day, day.active) for day in days] == [
        (date(2024, 1, 19), 15 * 3600),
        (date(2024, 1, 20), 3600),
    ]
    assert [group.session_id for group in fake.usage.sessions(page_size=1)] == [one.id, two.id]
    assert fake.usage.get(session_id=two.id).total.active == 7200


def test_a_list_of_windows_goes_on_where_it_was() -> None:
    fake = FakeBuntime()
    for _ in range(3):
        fake.sessions.create().delete()
    first = fake.usage.windows(page_size=2)
    seen = [window.window_id for window in first.page()]
    assert len(seen) == 2
    again = fake.usage.windows(cursor=first.cursor)
    seen += [window.window_id for window in again]
    assert len(set(seen)) == 3
    assert again.page() == []
    fake.sessions.create().delete()
    assert len(again.page()) == 1


def test_pages_of_sessions_end() -> None:
    clock = Clock()
    fake = FakeBuntime(clock=clock)
    made = [fake.sessions.create().id for _ in range(3)]
    clock.now += HOUR
    sessions, found = fake.usage.sessions(page_size=2), list[str | None]()
    while page := sessions.page():
        found += [group.session_id for group in page]
        assert len(found) <= len(made)
    assert sorted(found, key=str) == sorted(made)
    assert sessions.page() == list(sessions) == []


def test_an_empty_page_in_the_middle_is_not_the_end() -> None:
    told: dict[str | None, tuple[list[int], str | None]] = {
        None: ([1], "a"),
        "a": ([], "b"),
        "b": ([2], "c"),
        "c": ([], None),
    }
    pages = CursorPages(lambda cursor: told[cursor], None)
    assert [pages.page() for _ in range(4)] == [[1], [2], [], []]


def test_a_loop_that_breaks_off_moves_no_cursor() -> None:
    fake = FakeBuntime()
    for _ in range(3):
        fake.sessions.create().delete()
    windows = fake.usage.windows(page_size=2)
    for window in windows:
        if window.window_id.endswith("_1"):
            break
    assert windows.cursor is None
    assert len(list(windows)) == 3


def test_what_a_server_refuses_the_fake_refuses() -> None:
    usage = FakeBuntime().usage
    with pytest.raises(SessionNotFound):
        usage.get(session_id="ses_000000000000000000")
    for wrong in ({"since": "soon"}, {"since": date(2024, 1, 2), "until": date(2024, 1, 2)}):
        with pytest.raises(InvalidRequest):
            usage.get(**wrong)
    with pytest.raises(InvalidRequest, match="time zone"):
        usage.get(since=datetime(2024, 1, 1))
    with pytest.raises(InvalidRequest):
        usage.windows(cursor="uwc_9").page()


async def test_usage_of_an_async_client_works_alike() -> None:
    fake = AsyncFakeBuntime()
    session = await fake.sessions.create()
    await session.delete()
    assert [window.state async for window in fake.usage.windows()] == ["active"]
    assert [group.session_id async for group in fake.usage.sessions()] in ([], [session.id])
