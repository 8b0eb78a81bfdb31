"""The server bounds the memory for large answers."""

import asyncio

import pytest

from buntime.daemon.room import SMALL, Room, belongs_to, hold
from buntime.errors import Unavailable

MB = 1 << 20


def test_small_answers_always_pass() -> None:
    room = Room(limit=0)
    with room.for_one_request():
        hold(SMALL)
    with room.for_one_request(), pytest.raises(Unavailable):
        hold(SMALL + 1)


def test_a_request_gives_back_what_it_holds_when_it_ends() -> None:
    room = Room(limit=10 * MB, share=10 * MB)
    with room.for_one_request():
        for _ in range(11):
            hold(MB)
        with pytest.raises(Unavailable):
            hold(MB)
    assert room.used == 0
    with room.for_one_request():
        hold(11 * MB)
        assert room.used == 10 * MB


def test_one_account_cannot_use_all_of_the_room() -> None:
    room = Room(limit=10 * MB, share=5 * MB)
    with room.for_one_request():
        belongs_to("greedy")
        hold(6 * MB)
        with pytest.raises(Unavailable):
            hold(1)
        with room.for_one_request():
            belongs_to("other")
            hold(6 * MB)
            assert room.used == 10 * MB


async def test_work_that_outlives_its_request_is_not_counted_for_ever() -> None:
    room, ended = Room(), asyncio.Event()

    async def work() -> None:
        hold(5 * MB)
        await ended.wait()
        hold(50 * MB)

    with room.for_one_request():
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        assert room.used == 4 * MB
    ended.set()
    await task
    assert room.used == 0


def test_without_a_request_nothing_is_counted() -> None:
    hold(1 << 40)
