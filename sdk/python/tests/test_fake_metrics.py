"""The fake's metrics, as users' tests use them."""

from datetime import UTC, datetime, timedelta

import pytest
from buntime_sdk import InvalidRequest, SessionNotFound
from buntime_sdk.testing import AsyncFakeBuntime, FakeBuntime

NOW = datetime(2024, 1, 19, 10, 30, tzinfo=UTC)


def test_a_session_that_is_awake_has_a_point_and_one_that_sleeps_has_none() -> None:
    fake = FakeBuntime(clock=lambda: NOW)
    session = fake.sessions.create()
    session.files.write("a.txt", "four")
    told = session.metrics(step=60)
    assert (told.session_id, told.step, told.until) == (session.id, 60, NOW)
    (point,) = told.points
    assert (point.cpu, point.disk, point.disk_max, point.processes) == (0, 4, 4, 0)
    session.sleep()
    assert session.metrics().points == ()
    assert session.refresh().state == "idle"


def test_sessions_are_listed_with_what_they_do() -> None:
    fake = FakeBuntime(clock=lambda: NOW)
    first, second = fake.sessions.create(name="build"), fake.sessions.create(metadata={"team": "web"})
    first.sleep("deep-sleep")
    found = list(fake.sessions.metrics(page_size=1))
    assert [(one.session_id, one.state, one.metrics is None) for one in found] == [
        (second.id, "active", False),
        (first.id, "deep-sleep", True),
    ]
    assert [one.session_id for one in fake.sessions.metrics(name="build")] == [first.id]
    assert [one.session_id for one in fake.sessions.metrics(metadata={"team": "web"})] == [second.id]
    assert [one.session_id for one in fake.sessions.metrics(state="active")] == [second.id]


def test_times_need_a_zone_and_an_order() -> None:
    session = FakeBuntime(clock=lambda: NOW).sessions.create()
    with pytest.raises(InvalidRequest) as refused:
        session.metrics(since=datetime(2024, 1, 19))
    assert refused.value.details == {"field": "since"}
    with pytest.raises(InvalidRequest, match="from must be before to"):
        session.metrics(since=NOW, until=NOW - timedelta(hours=1))


async def test_the_async_half_has_the_same() -> None:
    fake = AsyncFakeBuntime(clock=lambda: NOW)
    session = await fake.sessions.create()
    assert len((await session.metrics(since=NOW - timedelta(hours=2))).points) == 1
    assert [one.session_id async for one in fake.sessions.metrics()] == [session.id]
    await session.delete()
    with pytest.raises(SessionNotFound):
        await session.metrics()
