"""Who may speak to a host as a host: who has the installation's master key, and means this host."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from buntime.fleet.peer_keys import PeerKeys, issue
from buntime.ports import Peer
from tests.edge.hosts import SECRET, Host, fleet
from tests.edge.rig import Message, read_message
from tests.edge.test_carrying import call, echo, session_on

STRANGER = "hst_" + "z" * 18
DAY = 86_400


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[Sequence[Host]]:
    async with fleet(tmp_path) as hosts:
        yield hosts


async def ask(
    host: Host, directory: Path, keys: PeerKeys | None, line: str = "GET /account", **sent: str
) -> Message | None:
    """Sends a request to the listener for hosts, with this certificate. None: it was not answered."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if keys is not None:
        (file := directory / "client.pem").write_bytes(keys.certificate + keys.key)
        context.load_cert_chain(file)
    address, _, port = host.me.address.rpartition(":")
    named = {"X-Buntime-Peer": host.me.id, "X-Buntime-Hops": "1"}
    named |= {name.replace("_", "-"): value for name, value in sent.items()}
    lines = [f"{line} HTTP/1.1", "Host: a", f"Authorization: Bearer {host.key}"]
    lines += [f"{name}: {value}" for name, value in named.items()]
    async with asyncio.timeout(20):
        with suppress(ConnectionError, ssl.SSLError):
            reader, writer = await asyncio.open_connection(address, int(port), ssl=context)
            writer.write("\r\n".join([*lines, "", ""]).encode())
            answer = await read_message(reader)
            writer.transport.abort()
            return answer
    return None


async def test_a_host_with_the_master_key_is_answered_and_not_counted(hosts: Sequence[Host], tmp_path: Path) -> None:
    answer = await ask(hosts[0], tmp_path, issue(SECRET, hosts[1].me.id, time.time()))
    assert answer is not None
    assert (answer.status, answer.header("X-RateLimit-Remaining")) == (200, None)


@pytest.mark.parametrize(
    "keys",
    [
        None,
        issue(bytes([1]) * 32, STRANGER, time.time()),
        issue(SECRET, STRANGER, time.time() - 91 * DAY),
        issue(SECRET, STRANGER, time.time() + 3 * DAY),
    ],
    ids=["none", "of another master key", "expired", "of the future"],
)
async def test_nobody_else_is_answered(hosts: Sequence[Host], tmp_path: Path, keys: PeerKeys | None) -> None:
    assert await ask(hosts[0], tmp_path, keys) is None


async def test_a_request_that_means_another_host_is_not_answered(hosts: Sequence[Host], tmp_path: Path) -> None:
    keys = issue(SECRET, hosts[1].me.id, time.time())
    assert await ask(hosts[0], tmp_path, keys, X_Buntime_Peer=STRANGER) is None


async def test_the_public_listener_knows_no_host(hosts: Sequence[Host], tmp_path: Path) -> None:
    public = replace(hosts[0], me=Peer(hosts[0].me.id, f"127.0.0.1:{hosts[0].port}"))
    assert await ask(public, tmp_path, issue(SECRET, hosts[1].me.id, time.time())) is None  # it does not speak TLS here


async def test_a_carried_request_is_no_question_of_a_host(hosts: Sequence[Host], tmp_path: Path) -> None:
    keys, question = issue(SECRET, hosts[1].me.id, time.time()), "POST /.hosts/count"
    carried = await ask(hosts[0], tmp_path, keys, question, Content_Length="0")
    assert carried is not None
    assert (carried.status, b"This path does not exist" in carried.body) == (404, True)
    asked = await ask(hosts[0], tmp_path, keys, question, Content_Length="0", X_Buntime_Hops="")
    assert asked is not None
    assert b"This host is in no fleet" in asked.body, "the server got it"


async def test_a_host_whose_name_is_not_the_meant_one_gets_no_request(
    hosts: Sequence[Host], http: aiohttp.ClientSession
) -> None:
    session = await session_on(http, hosts[0])
    assert (await call(http, hosts[1], "POST", "/execute", echo(session))).status == 200  # a connection is kept
    other = await session_on(http, hosts[0])
    hosts[1].owners.elsewhere[other] = Peer(STRANGER, hosts[0].me.address)
    answer = await call(http, hosts[1], "POST", "/execute", echo(other))
    assert answer.refusal == (503, "unavailable")
    assert hosts[0].owners.asked == []


async def test_a_host_with_another_master_key_gets_no_request(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    async with fleet(tmp_path / "ours") as ours, fleet(tmp_path / "theirs", secret=bytes([1]) * 32) as theirs:
        session = await session_on(http, ours[0])
        ours[1].owners.elsewhere[session] = Peer(ours[0].me.id, theirs[0].me.address)
        answer = await call(http, ours[1], "POST", "/execute", echo(session))
        assert answer.refusal == (503, "unavailable")
        assert theirs[0].owners.asked == []


async def test_root_alone_can_read_the_key(hosts: Sequence[Host]) -> None:
    files = [hosts[0].config.run_dir / "edge" / name for name in ("peer.pem", "peers.pem")]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
