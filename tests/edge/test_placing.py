"""Creates go to one of a few hosts: the first that takes it."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from buntime.fleet.peer_keys import issue
from buntime.ports import Peer
from tests.app.serving import Answer
from tests.edge.hosts import SECRET, Host, fleet
from tests.edge.test_carrying import call
from tests.ports import free_port


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[Sequence[Host]]:
    async with fleet(tmp_path, 3) as hosts:
        yield hosts


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


def gone(host: Host) -> Peer:
    """The host, with an address at which nobody answers."""
    return Peer(host.me.id, f"127.0.0.1:{free_port()}")


@asynccontextmanager
async def breaking(directory: Path, host: str) -> AsyncIterator[tuple[Peer, list[bytes]]]:
    """A host that takes requests, which the list gets, and then leaves."""
    keys, file = issue(SECRET, host, time.time()), directory / "breaking.pem"
    file.write_bytes(keys.certificate + keys.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    taken: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0, ssl=context) as server:
        yield Peer(host, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"), taken


async def test_the_next_host_makes_it_where_the_best_ones_do_not_answer(
    hosts: Sequence[Host], http: aiohttp.ClientSession
) -> None:
    hosts[0].owners.best = (gone(hosts[1]), gone(hosts[1]), hosts[2].me)
    made = await create(http, hosts[0], "once")
    assert owner(hosts, made) is hosts[2]
    again = await create(http, hosts[0], "once")
    assert (again.json["sessionId"], again.headers["Idempotent-Replayed"]) == (made.json["sessionId"], "true")
    hosts[0].owners.best = (gone(hosts[2]), None)
    other = await create(http, hosts[0])
    assert owner(hosts, other) is hosts[0]
    assert int(other.headers["X-RateLimit-Remaining"]) > 0


async def test_the_next_host_makes_it_where_the_server_of_the_best_one_was_killed(
    hosts: Sequence[Host], http: aiohttp.ClientSession
) -> None:
    hosts[0].owners.best = (hosts[1].me, hosts[2].me)
    hosts[1].config.api_socket.unlink()
    assert owner(hosts, await create(http, hosts[0])) is hosts[2]
    hosts[0].owners.best = (hosts[1].me,)
    refused = await create(http, hosts[0])
    assert (refused.refusal, refused.headers["Retry-After"]) == ((503, "unavailable"), "1")
    assert "X-Untaken" not in refused.headers


async def test_a_host_that_got_the_request_is_the_last_one(
    hosts: Sequence[Host], http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    async with breaking(tmp_path, hosts[1].me.id) as (peer, taken):
        hosts[0].owners.best = (peer, hosts[2].me)
        assert (await create(http, hosts[0])).refusal == (503, "unavailable")
    assert [request.split()[:2] for request in taken] == [[b"POST", b"/sessions/create"]]
    assert len(hosts[0].store.sessions) == 0


async def test_a_host_that_does_not_answer_is_unavailable_once(
    hosts: Sequence[Host], http: aiohttp.ClientSession
) -> None:
    hosts[0].owners.best = (Peer(hosts[1].me.id, f"127.0.0.1:{free_port()}"),)
    refused = await create(http, hosts[0])
    assert (refused.refusal, refused.headers["Retry-After"]) == ((503, "unavailable"), "1")
    assert len(hosts[0].store.sessions) == 0
