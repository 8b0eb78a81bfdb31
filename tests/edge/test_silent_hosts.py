"""A host that lost its power or its network: what waits for its answer is told, once its lease is over."""

import asyncio
import os
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from buntime.fleet.neighbours import Neighbours, endpoint
from buntime.fleet.peer_keys import issue
from buntime.ports import Peer
from buntime.sandboxes.other_hosts import OtherHosts
from tests.edge.hosts import SECRET, Host, fleet
from tests.edge.test_carrying import call, echo, session_on
from tests.edge.test_carrying_visitors import name_of, visit

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="ending other programs' connections is root's"),
]

SECONDS = 20.0  # a guard
PORT = 8080


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[Sequence[Host]]:
    async with fleet(tmp_path) as hosts:
        yield hosts


@asynccontextmanager
async def silent(directory: Path, host: str) -> AsyncIterator[tuple[Peer, asyncio.Queue[bytes]]]:
    """A host that takes requests, which the queue gets, and says nothing."""
    keys, file = issue(SECRET, host, time.time()), directory / "silent.pem"
    file.write_bytes(keys.certificate + keys.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    taken: asyncio.Queue[bytes] = asyncio.Queue()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                taken.put_nowait(await reader.readuntil(b"\r\n\r\n"))
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0, ssl=context) as server:
        yield Peer(host, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"), taken
        server.close_clients()


async def lease_is_over(peer: Peer) -> None:
    found = endpoint(peer.address)
    assert found is not None
    await OtherHosts(lambda: Neighbours(silent=frozenset({found})), lambda hosts: None).look()


async def test_requests_and_visits_that_wait_for_a_silent_host_are_answered(
    hosts: Sequence[Host], http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    session = await session_on(http, hosts[0], preview={"visibility": "public", "ports": [PORT]})
    async with silent(tmp_path, hosts[0].me.id) as (peer, taken):
        hosts[1].owners.elsewhere[session] = peer
        async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
            asked = group.create_task(call(http, hosts[1], "POST", "/execute", echo(session)))
            await taken.get()
            visited = group.create_task(visit(hosts[1], name_of(session, PORT, hosts[1])))
            await taken.get()
            assert not asked.done()
            assert not visited.done()
            await lease_is_over(peer)
        answer, page = asked.result(), visited.result()
    assert (answer.refusal, answer.headers["Retry-After"]) == ((503, "unavailable"), "1")
    assert (page.status, page.header("X-Preview-Error"), page.header("Retry-After")) == (503, "unavailable", "1")


async def test_no_connection_to_a_silent_host_is_kept(
    hosts: Sequence[Host], http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    session = await session_on(http, hosts[0])
    assert (await call(http, hosts[1], "POST", "/execute", echo(session))).status == 200
    await lease_is_over(hosts[0].me)
    assert (await call(http, hosts[1], "POST", "/execute", echo(session))).status == 200, "by a new connection"
