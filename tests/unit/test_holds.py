"""Writes and copies of one session's files."""

import asyncio

import pytest

from buntime.lifecycle import holds
from buntime.lifecycle.holds import Holds


async def test_a_copy_waits_for_writes_and_holds_those_that_come_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds, "WRITES_SECONDS", 60)
    held, order, first_may_end = Holds(), list[str](), asyncio.Event()

    async def write(name: str, may_end: asyncio.Event | None = None) -> None:
        async with held.writing("ses_a"):
            order.append(f"{name} begins")
            if may_end is not None:
                await may_end.wait()
            order.append(f"{name} ends")

    async def copy(name: str) -> None:
        async with held.copying("ses_a"):
            order.append(f"{name} begins")
            await asyncio.sleep(0)
            order.append(f"{name} ends")

    async with asyncio.TaskGroup() as group:
        group.create_task(write("first", first_may_end))
        await asyncio.sleep(0)
        group.create_task(copy("copy"))
        await asyncio.sleep(0)
        group.create_task(write("second"))
        async with asyncio.timeout(5), held.writing("ses_b"):  # another session
            pass
        assert order == ["first begins"]
        first_may_end.set()
    assert order == ["first begins", "first ends", "copy begins", "copy ends", "second begins", "second ends"]


async def test_a_write_that_does_not_end_delays_a_copy_only_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holds, "WRITES_SECONDS", 0.01)
    held = Holds()
    async with asyncio.timeout(5), held.writing("ses_a"), held.copying("ses_a"):
        pass


async def test_copies_go_on_beside_each_other() -> None:
    held = Holds()
    async with asyncio.timeout(5):
        async with held.copying("ses_a"), held.copying("ses_a"):
            pass
        async with held.writing("ses_a"):
            pass
