"""What time it is for a host of a fleet, whatever its own clock says."""

import asyncio
import time

import pytest

from buntime.errors import Unavailable
from buntime.fleet.database_clock import DatabaseClock
from buntime.testing.members import FakeMembers

HOUR = 3600.0


class Scene:
    def __init__(self) -> None:
        self.database, self.boot, self.takes = 1000.0, 50.0, 0.0

        def now() -> float:
            self.boot += self.takes
            return self.database

        self.members = FakeMembers(now)
        self.clock = DatabaseClock(self.members, lambda: self.boot)


async def test_a_clock_goes_on_from_what_the_database_said() -> None:
    scene = Scene()
    await scene.clock.hear()
    scene.boot += 7
    assert scene.clock() == 1007


async def test_a_step_of_the_host_s_clock_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = DatabaseClock(FakeMembers(time.time))
    await clock.hear()
    before, own = clock(), time.time()
    monkeypatch.setattr(time, "time", lambda: own + HOUR)
    assert clock() - before < HOUR / 2


async def test_a_slow_answer_changes_no_clock_that_is_known() -> None:
    scene = Scene()
    await scene.clock.hear()
    scene.takes = 20.0
    await scene.clock.hear()
    assert scene.clock() == 1020


async def test_a_start_waits_until_the_database_says_what_time_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, failures = Scene(), [Unavailable("away", 1)]
    now = scene.members.now

    async def sometimes() -> float:
        if failures:
            raise failures.pop()
        return await now()

    monkeypatch.setattr(scene.members, "now", sometimes)
    monkeypatch.setattr("buntime.fleet.database_clock.AGAIN_SECONDS", 0.01)
    keeping = asyncio.create_task(scene.clock.keep())
    await asyncio.wait_for(scene.clock.until_heard(), 10)
    assert scene.clock() == 1000
    keeping.cancel()
