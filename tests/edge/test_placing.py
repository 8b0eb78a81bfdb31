"""Creates go to one of a few hosts: the first that takes it."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
import pytest

from buntime.ports import Peer
from tests.app.serving import Answer
from tests.edge.hosts import Host, fleet
from tests.edge.test_carrying import call
from tests.ports import free_port


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[Sequence[Host]]:
    async with fleet(tmp_path, 3) as hosts:
        yield hosts


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as http:
        yield http


async def create(http: aiohttp.ClientSession, host: Host, key: str = "", **fields: object) -> Answer:
    return await call(http, host, "POST", "/sessions/create", fields, **({"Idempotency_Key": key} if key else {}))


def owner(hosts: Sequence[Host], answer: Answer) -> Host:
    assert answer.status == 200, answer.body
    stored = hosts[0].store.sessions[answer.json["sessionId"]]
    [found] = [host for host in hosts if host.me.id == stored.host]
    return found


async def test_the_best_host_makes_the_session(hosts: Sequence[Host], http: aiohttp.ClientSession) -> None:
    assert owner(hosts, await create(http, hosts[0])) is hosts[0]
    hosts[0].owners.best = (hosts[1].me, None)
    made = await create(http, hosts[0])
    assert owner(hosts, made) is hosts[1]
    assert int(made.headers["X-RateLimit-Remaining"]) > 0


async def test_a_host_that_is_full_lets_the_next_one_make_it(
    hosts: Sequence[Host], http: aiohttp.ClientSession
) -> None:
    hosts[0].owners.best = (hosts[1].me, None, hosts[2].me)
    hosts[1].owners.best = (hosts[2].me,)  # its own opinion does not count here
    hosts[1].sandboxes.capacity = 0
    assert owner(hosts, await create(http, hosts[0])) is hosts[0]
    hosts[0].sandboxes.capacity = len(hosts[0].sandboxes.running)
    assert owner(hosts, await create(http, hosts[0])) is hosts[2]
    hosts[2].sandboxes.capacity = len(hosts[2].sandboxes.running)
    refused = await create(http, hosts[0])
    assert refused.refusal == (503, "unavailable")
    assert len(hosts[0].store.sessions) == 2


async def test_no_more_hosts_than_a_few_are_asked(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    async with fleet(tmp_path, 5) as hosts:
        hosts[0].owners.best = tuple(host.me for host in hosts[1:])
        for host in hosts[:4]:
            host.sandboxes.capacity = 0
        assert (await create(http, hosts[0])).refusal == (503, "unavailable")
        assert len(hosts[0].store.sessions) == 0


async def test_names_and_idempotency_keys_make_one_session(hosts: Sequence[Host], http: aiohttp.ClientSession) -> None:
    hosts[0].owners.best, hosts[2].owners.best = (hosts[1].me,), (hosts[1].me,)
    first = await create(http, hosts[0], "once")
    assert owner(hosts, first) is hosts[1]
    for host in hosts:
        again = await create(http, host, "once")
        assert (again.json["sessionId"], again.headers["Idempotent-Replayed"]) == (first.json["sessionId"], "true")
    named = await create(http, hosts[0], name="a", onConflict="return")
    for host in hosts:
        found = await create(http, host, name="a", onConflict="return")
        assert (found.json["sessionId"], found.headers["Session-Existing"]) == (named.json["sessionId"], "true")
        assert (await create(http, host, name="a")).refusal == (409, "name_taken")
    assert len(hosts[0].store.sessions) == 2


async def test_a_host_that_does_not_answer_is_unavailable_once(
    hosts: Sequence[Host], http: aiohttp.ClientSession
) -> None:
    hosts[0].owners.best = (Peer(hosts[1].me.id, f"127.0.0.1:{free_port()}"),)
    refused = await create(http, hosts[0])
    assert (refused.refusal, refused.headers["Retry-After"]) == ((503, "unavailable"), "1")
    assert len(hosts[0].store.sessions) == 0
