"""Work that nobody waits for takes turns, and none can keep others from theirs."""

import asyncio

import pytest

from buntime.daemon import turns as module
from buntime.daemon.turns import Turns


async def test_no_more_than_the_places_work_at_once() -> None:
    turns, working, most = Turns(places=2), 0, 0

    async def work() -> None:
        nonlocal working, most
        async with turns.one():
            working += 1
            most = max(most, working)
            await asyncio.sleep(0.001)
            working -= 1

    await asyncio.gather(*(work() for _ in range(10)))
    assert most == 2


async def test_work_that_takes_long_does_not_keep_others_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_TURN", 0.01)
    turns, end = Turns(places=1), asyncio.Event()

    async def slow() -> None:
        async with turns.one():
            await end.wait()

    first = asyncio.create_task(slow())
    await asyncio.sleep(0)
    async with asyncio.timeout(5), turns.one():
        assert not first.done()
    end.set()
    await first


async def test_a_place_is_given_back_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_TURN", 0.01)
    turns = Turns(places=1)
    for seconds in (0.03, 0.0, 0.03):
        async with turns.one():
            await asyncio.sleep(seconds)
    with pytest.raises(ValueError, match="failed"):
        async with turns.one():
            raise ValueError("failed")
    async with turns.one():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001), turns.one():
                pass
