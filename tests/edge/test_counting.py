"""Two hosts count the requests of one key together."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from buntime.fleet.rates import Asked, PeerAway
from buntime.ports import Peer
from buntime.testing.rates import FakePot
from tests.edge.hosts import Host, fleet
from tests.ports import free_port

LIMIT = 30
ACCOUNT = "acc_one0000000000000"


class Calls:
    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    async def __call__(self, host: Host, path: str = "/account") -> tuple[int, int, int]:
        """Status, what remains, and the seconds after which to try again."""
        async with self._http.get(host.url + path, headers={"Authorization": f"Bearer {host.key}"}) as answer:
            found = answer.headers
            return answer.status, int(found["X-RateLimit-Remaining"]), int(found.get("Retry-After", 0))


@asynccontextmanager
async def counting(directory: Path, rate: int, pot: FakePot) -> AsyncIterator[tuple[Sequence[Host], Calls]]:
    async with fleet(directory, rate=rate, pot=pot) as hosts, aiohttp.ClientSession() as http:
        yield hosts, Calls(http)


@pytest.fixture
def pot() -> FakePot:
    """Of a database whose minute has just begun."""
    began = time.monotonic()
    return FakePot(lambda: 1_700_000_040 + time.monotonic() - began)


async def test_a_small_key_gets_exactly_its_limit_over_both_hosts(tmp_path: Path, pot: FakePot) -> None:
    async with counting(tmp_path, LIMIT, pot) as (hosts, call):
        for number in range(LIMIT // 2):
            status, remaining, _ = await call(hosts[number % 2])
            assert (status, remaining) == (200, LIMIT - number - 1)
        answers = await asyncio.gather(*(call(hosts[number % 2]) for number in range(LIMIT)))
        statuses = [status for status, _, _ in answers]
        assert sorted(statuses) == [200] * (LIMIT - LIMIT // 2) + [429] * (LIMIT // 2)
        for host in hosts:
            status, remaining, again = await call(host)
            assert (status, remaining) == (429, 0)
            assert 1 <= again <= 60


async def test_a_large_key_gets_at_least_nine_tenths_and_never_more_than_its_limit(
    tmp_path: Path, pot: FakePot
) -> None:
    async with counting(tmp_path, 1000, pot) as (hosts, call):
        allowed = 0
        for _ in range(11):
            answers = await asyncio.gather(*(call(hosts[number % 5 == 0]) for number in range(100)))
            allowed += sum(status == 200 for status, _, _ in answers)
        assert 900 <= allowed <= 1000
        assert pot.questions < 60


async def test_where_the_home_of_a_key_is_away_each_host_counts_by_itself(tmp_path: Path, pot: FakePot) -> None:
    async with counting(tmp_path, LIMIT, pot) as (hosts, call):
        for host in hosts:
            number = 0
            while host.homes.of(ACCOUNT) is None:
                number += 1
                host.homes.see([Peer(f"hst_{number}", f"127.0.0.1:{free_port()}")])
        statuses = [(await call(hosts[number % 2]))[0] for number in range(LIMIT + 2)]
        assert statuses == [200] * LIMIT + [429, 429]


async def test_no_client_can_ask_as_a_host(tmp_path: Path, pot: FakePot) -> None:
    async with fleet(tmp_path, rate=LIMIT, pot=pot) as hosts, aiohttp.ClientSession() as http:
        body = json.dumps([[ACCOUNT, "key_one000000000", LIMIT]])
        headers = {"Authorization": f"Bearer {hosts[0].key}", "X-Buntime-Peer": hosts[0].me.id}
        for path in ("/.hosts/count", "/count"):
            async with http.post(hosts[0].url + path, data=body, headers=headers) as answer:
                assert answer.status == 404
        assert await hosts[0].home.count(hosts[1].me, [Asked(ACCOUNT, "key_one000000000", LIMIT)])


async def test_another_host_at_the_same_address_is_not_believed(tmp_path: Path, pot: FakePot) -> None:
    asked = [Asked(ACCOUNT, "key_one000000000", LIMIT)]
    async with fleet(tmp_path, rate=LIMIT, pot=pot) as hosts:
        home = hosts[0].home
        with pytest.raises(PeerAway):
            await home.count(Peer("hst_" + "z" * 18, hosts[1].me.address), asked)
        assert [own.remaining for own, _ in await home.count(hosts[1].me, asked)] == [LIMIT - 1]


async def test_a_question_that_makes_no_sense_is_refused_and_a_database_that_is_away_is_told(
    tmp_path: Path, pot: FakePot
) -> None:
    async with fleet(tmp_path, rate=LIMIT, pot=pot) as hosts:
        home = hosts[0].home
        with pytest.raises(PeerAway, match="400"):
            await home.count(hosts[1].me, [Asked(ACCOUNT, "key", "many")])  # type: ignore[arg-type]
        pot.is_away = True
        with pytest.raises(PeerAway, match="503"):
            await home.count(hosts[1].me, [Asked(ACCOUNT, "key", LIMIT)])
