"""Work on sessions that are due, many in one batch."""

from collections.abc import Sequence

import pytest

from buntime.daemon.moments import moments_of
from buntime.daemon.tasks import Tasks
from buntime.lifecycle.batches import TOGETHER_SECONDS, Batches
from tests.waiting import eventually


class Clock:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("began", [0.0, 1000.0, 1234.567])
async def test_sessions_that_are_due_together_make_few_batches(began: float) -> None:
    clock, done = Clock(began), list[tuple[float, Sequence[str]]]()
    due = {f"ses_{number}": 10 + number / 10 for number in range(100)}  # over ten seconds

    async def work(sessions: Sequence[str]) -> None:
        done.append((clock.now, sessions))

    async with Tasks() as tasks:
        batches = Batches("work", 500, work, tasks, moments_of(clock))
        for session, seconds in due.items():
            batches.put(session, seconds, together=True)
        for tick in range(30):
            clock.now = began + tick
            batches.begin_due()
            await eventually(lambda: batches.at_rest)
    assert len(done) <= 10 / TOGETHER_SECONDS + 1
    waits = {session: at - began for at, sessions in done for session in sessions}
    assert waits.keys() == due.keys()
    assert all(due[name] <= wait <= due[name] + TOGETHER_SECONDS + 1 for name, wait in waits.items())


async def test_a_session_is_due_once_and_not_after_it_was_dropped() -> None:
    clock, done = Clock(50.0), list[str]()

    async def work(sessions: Sequence[str]) -> None:
        done.extend(sessions)

    async with Tasks() as tasks:
        batches = Batches("work", 500, work, tasks, moments_of(clock))
        batches.begin_due()
        batches.put("ses_a", 2)
        batches.put("ses_b", 2)
        batches.drop("ses_b")
        for _ in range(10):
            clock.now += 1
            batches.begin_due()
            await eventually(lambda: batches.at_rest)
    assert done == ["ses_a"]
