"""How one host counts, beside the fleet of `test_rates_model.py`."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from buntime.errors import Unavailable
from buntime.fleet.homes import Homes
from buntime.fleet.rates import AWAY_SECONDS, Asked, FleetRates, PeerAway
from buntime.fleet.shares import IDLE_SECONDS
from buntime.ports import Peer
from buntime.rates import KEYS_WORTH, Standings
from buntime.testing.rates import FakePot

START = 1_700_000_040.0
OTHER = Peer("hst_other", "10.0.0.2:8443")


@dataclass
class World:
    """A host with another one, which does not answer. Implements `fleet.rates.Home`."""

    now: float = 0.0
    questions: list[Peer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.pot = FakePot(lambda: START + self.now)
        self.homes = Homes("hst_me")
        self.homes.see([OTHER])
        self.rates = FleetRates(self.pot, self.homes, self, lambda: self.now)
        names = [f"acc_{number}" for number in range(100)]
        self.ours = next(each for each in names if self.homes.of(each) is None)
        self.theirs = next(each for each in names if self.homes.of(each) == OTHER)

    async def count(self, peer: Peer, asked: Sequence[Asked]) -> Sequence[Standings]:
        self.questions.append(peer)
        await asyncio.sleep(0)
        raise PeerAway

    async def send(self, account: str, key: str, rate: int) -> bool:
        _, standing = self.rates.count(account, key, rate) or await self.rates.ask(account, key, rate)
        return standing.allowed


@pytest.fixture
def world() -> World:
    return World()


async def test_what_an_accounts_limit_refuses_does_not_count_for_the_key(world: World) -> None:
    rate, account = 10, world.ours
    for number in range(KEYS_WORTH):
        assert all([await world.send(account, f"key_{number}", rate) for _ in range(rate)])
    for _ in range(3):
        own, decides = world.rates.count(account, "key_late", rate) or await world.rates.ask(account, "key_late", rate)
        assert (decides.allowed, decides.limit, decides.remaining) == (False, KEYS_WORTH * rate, 0)
        assert own is not decides
        assert own.allowed


async def test_what_a_keys_limit_refuses_takes_nothing_from_its_account(world: World) -> None:
    account = world.ours
    assert [await world.send(account, "key_one", 2) for _ in range(9)] == [True] * 2 + [False] * 7
    others = [await world.send(account, f"key_{number}", 2) for number in range(4) for _ in range(2)]
    assert all(others)


async def test_a_burst_asks_once(world: World) -> None:
    sent = await asyncio.gather(*(world.send(world.ours, "key", 1000) for _ in range(700)))
    assert all(sent)
    assert world.pot.questions <= 3


async def test_a_host_goes_on_with_what_it_holds_while_the_database_is_away(world: World) -> None:
    assert await world.send(world.ours, "key", 100)
    world.pot.is_away = True
    for _ in range(9):
        assert await world.send(world.ours, "key", 100)
    for _ in range(2):
        with pytest.raises(Unavailable):
            await world.send(world.ours, "key", 100)
    world.pot.is_away = False
    assert await world.send(world.ours, "key", 100)


async def test_all_who_wait_hear_that_the_database_is_away(world: World) -> None:
    world.pot.is_away = True
    sent = await asyncio.gather(*(world.send(world.ours, "key", 100) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(each, Unavailable) for each in sent)
    assert len(set(map(id, sent))) == 5


async def test_a_home_that_does_not_answer_is_asked_again_after_a_while(world: World) -> None:
    assert [await world.send(world.theirs, "key", 5) for _ in range(4)] == [True] * 4
    assert world.questions == [OTHER]
    world.now += AWAY_SECONDS
    assert [await world.send(world.theirs, "key", 5) for _ in range(2)] == [True, False]
    assert world.questions == [OTHER] * 2


async def test_large_keys_are_counted_where_they_come(world: World) -> None:
    assert await world.send(world.theirs, "key", 1000)
    assert not world.questions


async def test_a_client_that_leaves_while_it_waits_does_not_stop_the_others(world: World) -> None:
    waiting = [asyncio.create_task(world.send(world.ours, "key", 100)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    assert await waiting[1]
    assert await waiting[2]


async def test_a_home_keeps_its_shares_until_the_account_moves(world: World) -> None:
    assert await world.send(world.ours, "key", 100)
    world.now += IDLE_SECONDS
    await world.rates.give_back()
    asked = world.pot.questions
    assert await world.send(world.ours, "key", 100)
    assert world.pot.questions == asked
    number = 0
    while world.homes.of(world.ours) is None:
        number += 1
        world.homes.see([Peer(f"hst_{number}", "10.0.0.3:8443")])
    world.now += IDLE_SECONDS
    await world.rates.give_back()
    world.homes.see([])
    assert [await world.send(world.ours, "key", 100) for _ in range(99)] == [True] * 98 + [False]
