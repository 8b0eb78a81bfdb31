"""A whole fleet counts requests, with traffic that moves between hosts, hosts that come and go, and clocks that step.
Seeded: a failure names its seed.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import pytest

from buntime.errors import Unavailable
from buntime.fleet.homes import Homes
from buntime.fleet.rates import Asked, FleetRates, PeerAway
from buntime.ports import Peer
from buntime.rates import KEYS_WORTH, WINDOW, Standings
from buntime.testing.rates import FakePot

TICK = 0.25  # seconds
LEASE = 8.0  # seconds until the others know that a host is lost
START = 1_700_000_040.0


@dataclass
class Traffic:
    """What one key's client sends, to a few of the hosts at a time."""

    account: str
    key: str
    rate: int
    per_minute: float
    most_hosts: int

    def spread(self, hosts: Sequence["Host"], random: Random) -> Sequence["Host"]:
        few = random.sample(list(hosts), min(len(hosts), random.randint(1, self.most_hosts)))
        return [host for host in few for _ in range(random.choice((1, 1, 3, 20)))]


class Host:
    def __init__(self, number: int, fleet: "Fleet", random: Random) -> None:
        self.peer = Peer(f"hst_{number:03}", f"10.0.0.{number}:8443")
        self.homes = Homes(self.peer.id)
        self._fleet, self._rate = fleet, 1 + random.uniform(-1e-4, 1e-4)  # of its clock
        self._offset = random.uniform(0, 1e6)
        self.rates = FleetRates(fleet.pot, self.homes, fleet, self.clock)

    def clock(self) -> float:
        return self._offset + self._fleet.now * self._rate


@dataclass
class Fleet:
    """Implements `fleet.rates.Home` for all of them."""

    random: Random
    now: float = 0.0  # seconds, true ones
    step: float = 0.0  # of the database's clock
    steps: int = 0
    hosts: dict[Peer, Host] = field(default_factory=dict)
    news: list[tuple[float, Sequence[Peer]]] = field(default_factory=list)  # when all know of which hosts
    made: int = 0

    def __post_init__(self) -> None:
        self.pot = FakePot(self.database_clock)

    def database_clock(self) -> float:
        return START + self.now + self.step

    async def count(self, peer: Peer, asked: Sequence[Asked]) -> Sequence[Standings]:
        if peer not in self.hosts:
            raise PeerAway
        return await self.hosts[peer].rates.count_here(asked)

    def join(self) -> None:
        self.made += 1
        host = Host(self.made, self, self.random)
        self.hosts[host.peer] = host
        self.news.append((self.now + 1, list(self.hosts)))
        host.homes.see(list(self.hosts))

    def lose(self) -> None:
        """Power cut: what it held is gone, and nobody knows for a while."""
        del self.hosts[self.random.choice(list(self.hosts))]
        self.news.append((self.now + LEASE, list(self.hosts)))

    async def pass_time(self) -> None:
        self.now += TICK
        for at, hosts in self.news:
            if at <= self.now:
                for host in self.hosts.values():
                    host.homes.see(hosts)
        self.news = [each for each in self.news if each[0] > self.now]
        if round(self.now / TICK) % 4 == 0:
            for host in self.hosts.values():
                await host.rates.give_back()


@dataclass
class Counted:
    """By step of the clock, minute and name."""

    offered: Counter[tuple[int, int, str]] = field(default_factory=Counter)
    allowed: Counter[tuple[int, int, str]] = field(default_factory=Counter)
    limits: dict[str, int] = field(default_factory=dict)
    failed: int = 0


async def run(
    fleet: Fleet,
    traffic: Sequence[Traffic],
    minutes: int,
    *,
    losses: int = 0,
    joins: int = 0,
    steps: Sequence[float] = (),
) -> Counted:
    random, counted = fleet.random, Counted()
    for each in traffic:
        counted.limits |= {each.key: each.rate, each.account: KEYS_WORTH * each.rate}
    ticks = round(minutes * WINDOW / TICK)
    events = {random.randrange(ticks): fleet.lose for _ in range(losses)}
    events |= {random.randrange(ticks): fleet.join for _ in range(joins)}
    stepping = dict(zip(random.sample(range(ticks), len(steps)), steps, strict=True))
    spreads: dict[str, Sequence[Host]] = {}
    for tick in range(ticks):
        await fleet.pass_time()
        if tick in events and (len(fleet.hosts) > 1 or events[tick] == fleet.join):
            events[tick]()
            spreads.clear()
        if tick in stepping:
            fleet.step += stepping[tick]
            fleet.steps += 1
        for each in traffic:
            if each.key not in spreads or random.random() < 0.02:  # it moves every few seconds
                spreads[each.key] = each.spread(list(fleet.hosts.values()), random)
            expected = each.per_minute * TICK / WINDOW * random.choice((0, 0, 1, 3))
            number = int(expected) + (random.random() < expected % 1)
            await asyncio.gather(
                *(_request(fleet, random.choice(spreads[each.key]), each, counted) for _ in range(number))
            )
    return counted


async def _request(fleet: Fleet, host: Host, sender: Traffic, counted: Counted) -> None:
    minute = int(fleet.database_clock() // WINDOW)
    names = [(fleet.steps, minute, name) for name in (sender.key, sender.account)]
    counted.offered.update(names)
    asked = (sender.account, sender.key, sender.rate)
    try:
        own, standing = host.rates.count(*asked) or await host.rates.ask(*asked)
    except Unavailable:
        counted.failed += 1
        return
    assert own.limit == sender.rate
    assert 0 <= own.remaining <= own.limit
    if standing.allowed:
        counted.allowed.update(names)
    else:
        assert standing.remaining == 0


def fleet_of(number: int, seed: int) -> Fleet:
    fleet = Fleet(Random(seed))
    for _ in range(number):
        fleet.join()
    for host in fleet.hosts.values():
        host.homes.see(list(fleet.hosts))
    fleet.news.clear()
    return fleet


def large(most_hosts: int = 10) -> Sequence[Traffic]:
    return [
        Traffic("acc_a", "key_slow", 1000, 400, most_hosts),
        Traffic("acc_b", "key_just", 1000, 1050, most_hosts),
        Traffic("acc_c", "key_much", 1000, 2000, most_hosts),
        Traffic("acc_d", "key_more", 2000, 2500, most_hosts),
        *(Traffic("acc_many", f"key_many{number}", 1000, 900, most_hosts) for number in range(7)),
    ]


def small(most_hosts: int = 10) -> Sequence[Traffic]:
    return [
        Traffic("acc_e", "key_one", 1, 10, most_hosts),
        Traffic("acc_f", "key_free", 100, 80, most_hosts),
        Traffic("acc_g", "key_busy", 100, 400, most_hosts),
        Traffic("acc_h", "key_most", 999, 1200, most_hosts),
        *(Traffic("acc_few", f"key_few{number}", 60, 80, most_hosts) for number in range(7)),
    ]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("hosts", [1, 3, 10])
async def test_large_keys_get_at_least_nine_tenths_and_never_more_than_all(hosts: int, seed: int) -> None:
    counted = await run(fleet_of(hosts, seed), large(), minutes=2)
    assert any(counted.offered[each] > counted.allowed[each] for each in counted.offered)  # some were refused
    for (step, minute, name), allowed in counted.allowed.items():
        limit, offered = counted.limits[name], counted.offered[step, minute, name]
        if name == "acc_many":  # its keys are refused too
            offered = sum(min(counted.offered[step, minute, f"key_many{number}"], 900) for number in range(7))
        assert allowed <= limit, (name, minute)
        if name == "acc_many" or not name.startswith(("acc_", "key_many")):
            assert allowed >= 0.9 * min(limit, offered), (name, minute)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("hosts", [1, 2, 10])
async def test_small_keys_get_exactly_their_limit(hosts: int, seed: int) -> None:
    counted = await run(fleet_of(hosts, seed), small(), minutes=2)
    for (step, minute, name), offered in counted.offered.items():
        if name == "acc_few":
            offered = sum(min(counted.offered[step, minute, f"key_few{number}"], 60) for number in range(7))
            assert counted.allowed[step, minute, name] == min(offered, 300)
        elif not name.startswith(("key_few", "acc_")):
            assert counted.allowed[step, minute, name] == min(offered, counted.limits[name]), (name, minute)


@pytest.mark.parametrize("seed", range(4))
async def test_the_bounds_hold_while_hosts_are_lost_and_join(seed: int) -> None:
    counted = await run(fleet_of(6, seed), [*large(), *small()], minutes=3, losses=4, joins=4)
    for (step, minute, name), offered in counted.offered.items():
        limit, allowed = counted.limits[name], counted.allowed[step, minute, name]
        assert allowed <= limit, (name, minute)
        if limit >= 1000 and name.startswith("key_") and not name.startswith("key_many"):
            assert allowed >= 0.9 * min(limit, offered), (name, minute)


@pytest.mark.parametrize("seed", range(4))
async def test_a_step_of_the_databases_clock_gives_at_most_a_tenth_more(seed: int) -> None:
    random = Random(seed)
    steps = [random.choice((-3600.0, -90.0, -20.0, 0.5, 20.0, 90.0, 3600.0)) for _ in range(6)]
    counted = await run(fleet_of(random.choice((2, 10)), seed), [*large(), *small()], minutes=3, steps=steps)
    for (_, minute, name), allowed in counted.allowed.items():
        assert allowed <= 1.1 * counted.limits[name], (name, minute)


async def test_most_requests_ask_nobody() -> None:
    fleet = fleet_of(10, 1)
    counted = await run(fleet, [Traffic("acc_a", "key_a", 1000, 900, 10)], minutes=5)
    assert fleet.pot.questions < sum(counted.allowed.values()) / 2 / 4
