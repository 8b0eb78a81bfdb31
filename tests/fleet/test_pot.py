"""The fake and PostgreSQL hand out the same shares of a minute."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psycopg
import pytest

from buntime.fleet.rates import Pot
from buntime.fleet.shares import Granted, Unused, Wanted
from buntime.stores.postgres.connecting import place_of
from buntime.stores.postgres.store import PostgresStore
from buntime.testing.rates import FakePot
from tests.contracts.postgres import LOCAL
from tests.fleet.conftest import CLOCK, CLOCKED

START = 1767225600.0  # of the clock in conftest: the begin of a minute
MINUTE = int(START // 60)


@dataclass
class Kept:
    pot: Pot
    pass_time: Callable[[float], Awaitable[None]]  # on the database's clock; it may go back

    async def take(self, name: str, limit: int, number: int) -> Granted:
        return (await self.pot.take_shares([Wanted(name, limit, number)]))[name]


@asynccontextmanager
async def stored(url: str) -> AsyncIterator[PostgresStore]:
    store = await PostgresStore.open(place_of(url), LOCAL.host, lambda: LOCAL)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def clocked_store(tables: str) -> AsyncIterator[PostgresStore]:
    with psycopg.connect(tables, autocommit=True) as connection:
        connection.execute(CLOCK)
    async with stored(f"{tables}{CLOCKED}") as store:
        yield store


@pytest.fixture(params=["fake", pytest.param("postgres", marks=pytest.mark.postgres)])
def kept(request: pytest.FixtureRequest) -> Kept:
    if request.param == "fake":
        now = [START]

        async def pass_fake(seconds: float) -> None:
            now[0] += seconds

        return Kept(FakePot(lambda: now[0]), pass_fake)
    store: PostgresStore = request.getfixturevalue("clocked_store")
    url: str = request.getfixturevalue("tables")

    async def pass_time(seconds: float) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("UPDATE set_by_tests.clock SET at = at + make_interval(secs => %s)", (seconds,))

    return Kept(store, pass_time)


async def test_a_minute_is_handed_out_once(kept: Kept) -> None:
    await kept.pass_time(15)
    assert await kept.take("key", 10, 4) == Granted(MINUTE, 4, 4, 45)
    assert await kept.take("key", 10, 4) == Granted(MINUTE, 4, 8, 45)
    assert await kept.take("key", 10, 4) == Granted(MINUTE, 2, 10, 45)
    assert await kept.take("key", 10, 4) == Granted(MINUTE, 0, 10, 45)


async def test_a_new_minute_begins_anew(kept: Kept) -> None:
    await kept.take("key", 10, 10)
    await kept.pass_time(60)
    assert await kept.take("key", 10, 4) == Granted(MINUTE + 1, 4, 4, 60)


async def test_each_name_has_its_own_count(kept: Kept) -> None:
    granted = await kept.pot.take_shares([Wanted("b", 3, 9), Wanted("a", 10, 2), Wanted("c", 0, 1)])
    assert {name: each.number for name, each in granted.items()} == {"a": 2, "b": 3, "c": 0}


async def test_a_limit_that_is_lowered_hands_out_no_more(kept: Kept) -> None:
    await kept.take("key", 10, 8)
    assert await kept.take("key", 5, 1) == Granted(MINUTE, 0, 8, 60)
    assert (await kept.take("key", 9, 3)).number == 1


async def test_what_comes_back_is_handed_out_again_in_the_same_minute_alone(kept: Kept) -> None:
    await kept.take("key", 10, 10)
    await kept.pot.give_back([Unused("key", MINUTE, 3), Unused("other", MINUTE, 3)])
    assert (await kept.take("key", 10, 9)).number == 3
    await kept.pass_time(60)
    await kept.take("key", 10, 10)
    await kept.pot.give_back([Unused("key", MINUTE, 3)])
    assert (await kept.take("key", 10, 9)).number == 0


async def test_a_clock_that_is_set_back_a_little_begins_no_new_minute(kept: Kept) -> None:
    await kept.take("key", 10, 9)
    await kept.pass_time(-20)
    assert await kept.take("key", 10, 4) == Granted(MINUTE, 1, 10, 80)


async def test_a_clock_that_is_set_back_far_begins_a_new_minute(kept: Kept) -> None:
    await kept.take("key", 10, 9)
    await kept.pass_time(-3600)
    assert (await kept.take("key", 10, 4)).number == 4


@pytest.mark.postgres
async def test_hosts_that_ask_at_once_get_the_limit_together(tables: str) -> None:
    names = [f"key_{number:03}" for number in range(40)]
    async with stored(tables) as one, stored(tables) as two:

        async def take(store: PostgresStore, backwards: bool) -> int:
            wanted = [Wanted(name, 100, 7) for name in names]
            granted = await store.take_shares(wanted[::-1] if backwards else wanted)
            await store.give_back([Unused(name, each.minute, 2) for name, each in granted.items() if each.number > 2])
            return sum(each.number - 2 * (each.number > 2) for each in granted.values())

        taken = await asyncio.gather(*(take(store, n % 2 == 0) for n in range(25) for store in (one, two)))
        while last := await take(one, False):  # 2 came back after the others had asked
            taken.append(last)
        assert sum(taken) == 100 * len(names)


@pytest.mark.postgres
async def test_minutes_that_are_over_are_forgotten(tables: str) -> None:
    async with stored(tables) as store:
        await store.take_shares([Wanted("old", 10, 1), Wanted("new", 10, 1)])
        with psycopg.connect(tables, autocommit=True) as connection:
            connection.execute("UPDATE rates SET minute = minute - 11 WHERE name = 'old'")
            await store.drop_counted()
            assert connection.execute("SELECT name FROM rates").fetchall() == [("new",)]
