"""What accounts have open on all hosts stays within a limit. The fake and PostgreSQL agree."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import psycopg
import pytest

from buntime.errors import MayNotAct, Unavailable
from buntime.fleet.members import Membership
from buntime.fleet.places import FleetPlaces, PlaceRows
from buntime.places import Counts
from buntime.stores.postgres.connecting import place_of
from buntime.stores.postgres.store import PostgresStore
from buntime.testing.places import FakePlaceRows, FakePlaces
from tests.contracts.postgres import JOINED

ONE = ("acc_one", "processes")


@dataclass
class Host:
    """A host whose programs are numbers."""

    rows: PlaceRows
    me: Membership
    open: Counter[tuple[str, str]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.places = FleetPlaces(self.rows, lambda: self.me)

    async def start(self, limit: int, name: tuple[str, str] = ONE) -> bool:
        self.open[name] += 1
        taken = False
        try:
            taken = await self.places.take(*name, limit, lambda: self.open[name])
        finally:
            self.open[name] -= not taken
        return taken

    async def tell(self) -> None:
        async def count() -> Callable[[], Counts]:
            return lambda: dict(self.open)

        await self.places.refresh(count)


type Lose = Callable[[str], None]


@dataclass
class Fleet:
    hosts: Mapping[str, Host]
    lose: Lose  # another host has taken over from this one
    rejoin: Lose

    @property
    def a(self) -> Host:
        return self.hosts["a"]

    @property
    def b(self) -> Host:
        return self.hosts["b"]


@pytest.fixture
async def stored(tables: str) -> AsyncIterator[Fleet]:
    with psycopg.connect(tables, autocommit=True) as connection:
        for name in "ab":
            connection.execute(JOINED, [name, 1])

        def change(statement: str, name: str) -> None:
            connection.execute(statement.encode(), [name])

        async with AsyncExitStack() as stack:
            hosts: dict[str, Host] = {}
            for name in "ab":
                me = Membership(name, 1)
                store = await PostgresStore.open(place_of(tables), name, lambda name=name: hosts[name].me)  # type: ignore[misc]
                stack.push_async_callback(store.close)
                hosts[name] = Host(store, me)
            yield Fleet(
                hosts,
                lambda name: change(
                    "UPDATE hosts SET incarnation = incarnation + 1, taken_over = true WHERE id = %s", name
                ),
                lambda name: change("UPDATE hosts SET taken_over = false WHERE id = %s", name),
            )


@pytest.fixture(params=["fake", pytest.param("postgres", marks=pytest.mark.postgres)])
def fleet(request: pytest.FixtureRequest) -> Fleet:
    if request.param == "postgres":
        stored: Fleet = request.getfixturevalue("stored")
        return stored
    places = FakePlaces()
    hosts: dict[str, Host] = {}
    for name in "ab":
        places.members[name] = 1
        rows = FakePlaceRows(places, lambda name=name: hosts[name].me)  # type: ignore[misc]
        hosts[name] = Host(rows, Membership(name, 1))

    def lose(name: str) -> None:
        del places.members[name]

    def rejoin(name: str) -> None:
        places.members[name] = 2

    return Fleet(hosts, lose, rejoin)


async def test_two_hosts_have_no_more_than_the_limit_together(fleet: Fleet) -> None:
    assert [await host.start(3) for host in (fleet.a, fleet.b, fleet.a, fleet.b, fleet.a)] == [True] * 3 + [False] * 2
    assert await fleet.b.start(3, ("acc_two", "processes"))
    assert await fleet.b.start(3, ("acc_one", "terminals"))


async def test_starts_at_once_on_two_hosts_do_not_exceed_the_limit(fleet: Fleet) -> None:
    taken = await asyncio.gather(*(host.start(10) for host in (fleet.a, fleet.b) for _ in range(20)))
    assert sum(taken) == fleet.a.open[ONE] + fleet.b.open[ONE] == 10


async def test_what_has_ended_is_free_on_the_other_host_when_it_is_told(fleet: Fleet) -> None:
    assert [await fleet.a.start(2), await fleet.a.start(2), await fleet.b.start(2)] == [True, True, False]
    fleet.a.open[ONE] = 1
    assert not await fleet.b.start(2)
    await fleet.a.tell()
    assert await fleet.b.start(2)
    assert not await fleet.a.start(2)


async def test_what_runs_when_a_host_joins_counts_when_it_is_told(fleet: Fleet) -> None:
    fleet.a.open[ONE] = 2
    await fleet.a.tell()
    assert not await fleet.b.start(2)


async def test_a_limit_that_is_lowered_refuses_until_enough_has_ended(fleet: Fleet) -> None:
    assert [await fleet.a.start(3), await fleet.b.start(3)] == [True, True]
    assert not await fleet.b.start(1)
    assert not await fleet.a.start(1)


async def test_what_a_lost_host_had_counts_no_more_until_it_is_back_and_tells(fleet: Fleet) -> None:
    assert await fleet.a.start(1)
    assert not await fleet.b.start(1)
    fleet.lose("a")
    with pytest.raises(MayNotAct):
        await fleet.a.start(9)
    assert await fleet.b.start(1)
    fleet.rejoin("a")
    fleet.a.me = Membership("a", 2)
    assert not await fleet.a.start(1)
    await fleet.a.tell()  # what it had runs on, and nothing is ended
    fleet.b.open[ONE] = 0
    await fleet.b.tell()
    assert not await fleet.b.start(1)
    assert await fleet.b.start(2)


async def test_a_count_that_may_be_lost_is_told_again() -> None:
    places = FakePlaces()
    places.members = {"a": 1, "b": 1}
    one, two = (Host(FakePlaceRows(places, lambda me=me: me), me) for me in (Membership("a", 1), Membership("b", 1)))  # type: ignore[misc]
    assert await one.start(2)
    places.is_away = True
    with pytest.raises(Unavailable):
        await one.start(2)
    places.is_away = False
    places.used["acc_one", "processes", "a"] = (1, 2)  # it was made, and its answer lost
    assert not await two.start(2)
    await one.tell()
    assert await two.start(2)


@pytest.mark.postgres
async def test_what_a_removed_host_had_is_forgotten(stored: Fleet, tables: str) -> None:
    assert await stored.a.start(2)
    assert await stored.b.start(2)
    with psycopg.connect(tables, autocommit=True) as connection:
        connection.execute("DELETE FROM hosts WHERE id = 'a'")
        assert await stored.b.start(2)
        assert isinstance(stored.b.rows, PostgresStore)
        await stored.b.rows.drop_counted()
        assert connection.execute("SELECT host, used FROM places").fetchall() == [("b", 2)]
