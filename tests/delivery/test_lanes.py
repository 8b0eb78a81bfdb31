"""Slow endpoints have places of their own, also those that answer well."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from buntime.delivery import lanes
from buntime.delivery.lanes import Lanes
from tests.waiting import PATIENCE

SLOW = 0.05
QUICKLY = 5.0  # seconds; a place that is free is there at once


@pytest.fixture(autouse=True)
def one_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "QUICK", 1)
    monkeypatch.setattr(lanes, "SLOW", 1)
    monkeypatch.setattr(lanes, "SLOW_SECONDS", SLOW)


@asynccontextmanager
async def placed(places: Lanes, *webhooks: str) -> AsyncIterator[Sequence[str]]:
    """An attempt of each at once."""
    async with AsyncExitStack() as stack, asyncio.timeout(PATIENCE):
        for webhook in webhooks:
            await stack.enter_async_context(places.place(webhook, f"acc_of_{webhook}", failing=False))
        yield webhooks


async def test_an_endpoint_that_was_slow_takes_no_place_from_quick_ones() -> None:
    places = Lanes()
    async with placed(places, "whk_slow"):
        await asyncio.sleep(SLOW * 2)
    async with placed(places, "whk_slow", "whk_quick") as both:
        assert both


async def test_an_endpoint_is_slow_before_its_attempt_has_ended() -> None:
    places = Lanes()
    async with placed(places, "whk_slow"):
        await asyncio.sleep(SLOW * 2)
        async with placed(places, "whk_slow") as again:
            assert again


async def test_an_attempt_that_waited_for_a_place_takes_one_of_the_slow_when_its_endpoint_is_slow_by_then() -> None:
    places = Lanes()
    waited = placed(places, "whk_slow")
    async with placed(places, "whk_slow"):
        waiting = asyncio.create_task(waited.__aenter__())
        await asyncio.sleep(SLOW * 2)
    await waiting
    quick = placed(places, "whk_quick")
    async with asyncio.timeout(QUICKLY):
        await quick.__aenter__()
    await quick.__aexit__(None, None, None)
    await waited.__aexit__(None, None, None)


async def test_a_slow_endpoint_is_quick_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "SLOW_FOR", 0.0)
    places = Lanes()
    async with placed(places, "whk_slow"):
        await asyncio.sleep(SLOW * 2)
    async with placed(places, "whk_slow"):
        quick = placed(places, "whk_quick")
        with pytest.raises(TimeoutError):  # there is one quick place
            await asyncio.wait_for(quick.__aenter__(), SLOW)
