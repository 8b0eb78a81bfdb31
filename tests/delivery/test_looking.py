"""Looks of all webhooks share one budget of the loop's time."""

import asyncio
import time
from typing import Any

import pytest

from buntime.delivery.looking import SHARE, Looks
from buntime.ports import DuePage
from tests.delivery.conftest import Sending
from tests.delivery.receiver import receiving
from tests.waiting import PATIENCE, eventually


async def test_many_who_look_take_a_tenth_of_the_time_together() -> None:
    looks, took = Looks(), list[float]()

    async def look() -> None:
        async with looks.look():
            began = time.monotonic()
            time.sleep(0.005)  # noqa: ASYNC251 - a look blocks the loop
            took.append(time.monotonic() - began)

    began = time.monotonic()
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(*(look() for _ in range(10)))
    assert time.monotonic() - began > sum(took[:-1]) * (SHARE - 1)  # nothing rests after the last one


async def test_a_look_that_fails_or_is_cancelled_lets_the_next_look() -> None:
    looks = Looks()

    async def fail() -> None:
        async with looks.look():
            raise ValueError

    async def wait() -> None:
        async with looks.look():
            await asyncio.sleep(PATIENCE)

    failed = await asyncio.gather(fail(), return_exceptions=True)
    assert isinstance(failed[0], ValueError)
    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0.01)
    waiting.cancel()
    async with asyncio.timeout(PATIENCE), looks.look():
        pass


async def test_couriers_that_have_just_begun_share_it_too(sender: Sending, monkeypatch: pytest.MonkeyPatch) -> None:
    took = 0.0
    read = sender.store.due_deliveries

    async def slowly(*asked: Any) -> DuePage:
        nonlocal took
        began = time.monotonic()
        time.sleep(0.01)  # noqa: ASYNC251
        page = await read(*asked)
        took += time.monotonic() - began
        return page

    monkeypatch.setattr(sender.store, "due_deliveries", slowly)
    async with receiving() as receiver:
        for number in range(20):
            await sender.webhook(receiver.url(path=f"/{number}"))
        began = time.monotonic()
        await sender.happens()
        await eventually(lambda: len(receiver.got) == 20)
        assert took < (time.monotonic() - began) / 4
