"""Previews through another host: nginx carries them to the session's host, which asks its own control plane again."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
import pytest

from buntime.ports import Peer
from buntime.preview import QUERY
from tests.edge.hosts import Host, fleet
from tests.edge.rig import FakeSession, Message, read_message
from tests.edge.test_carrying import call, session_on
from tests.ports import free_port

SECONDS = 20.0


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[Sequence[Host]]:
    async with fleet(tmp_path, 3) as hosts:
        yield hosts


@pytest.fixture
async def program() -> AsyncIterator[tuple[FakeSession, int]]:
    """A program of a session, and its port."""
    program = FakeSession()
    server = await asyncio.start_server(program, "127.0.0.1", free_port(), limit=1 << 22)
    yield program, server.sockets[0].getsockname()[1]
    server.close()
    server.close_clients()


def name_of(session: str, port: int, host: Host) -> str:
    return f"{session.replace('_', '-')}-{port}.localhost:{host.port}"


async def visit(
    host: Host, name: str, target: str = "/", method: str = "GET", body: bytes = b"", **sent: str
) -> Message:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {name}", "Connection: close"]
    lines += [f"{key.replace('_', '-')}: {value}" for key, value in sent.items()]
    lines += [f"Content-Length: {len(body)}"] if body else []
    reader, writer = await asyncio.open_connection("127.0.0.1", host.port, limit=1 << 22)
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    async with asyncio.timeout(SECONDS):
        answer = await read_message(reader)
    writer.close()
    assert answer is not None
    return answer


async def test_a_visitor_of_another_host_reaches_the_session(
    hosts: Sequence[Host], http: aiohttp.ClientSession, program: tuple[FakeSession, int]
) -> None:
    asked, port = program
    session = await session_on(http, hosts[0], preview={"visibility": "public", "ports": [port]})
    name, body = name_of(session, port, hosts[1]), bytes(2 << 20)
    for _ in range(3):
        answer = await visit(
            hosts[1], name, "/a%2Fb?x=%20y", "POST", body, X_Buntime_Hops="9", Authorization="Basic abc", Cookie="a=b"
        )
        assert (answer.status, answer.body) == (200, b"ok")
    assert len(asked.requests) == 3
    request = asked.requests[-1]
    assert (request.line, request.body) == ("POST /a%2Fb?x=%20y HTTP/1.1", body)
    told = {
        key: request.all(key) for key in ("Host", "X-Forwarded-For", "X-Forwarded-Proto", "Authorization", "Cookie")
    }
    assert told == {
        "Host": [name], "X-Forwarded-For": ["127.0.0.1"], "X-Forwarded-Proto": ["http"],
        "Authorization": ["Basic abc"], "Cookie": ["a=b"],
    }  # fmt: skip
    assert not [key for key, _ in request.fields if key.lower().startswith("x-buntime")]
    assert hosts[1].owners.asked == [session], "the answer was remembered"


async def test_a_token_opens_a_private_preview_through_another_host(
    hosts: Sequence[Host], http: aiohttp.ClientSession, program: tuple[FakeSession, int]
) -> None:
    asked, port = program
    session = await session_on(http, hosts[0], preview={"visibility": "private", "ports": []})
    token = (await call(http, hosts[1], "POST", f"/sessions/{session}/preview-token", {"port": port})).json["token"]
    name = name_of(session, port, hosts[1])
    assert (await visit(hosts[1], name)).status == 401
    assert (await visit(hosts[1], name, X_Preview_Token=token)).status == 200
    assert (await visit(hosts[1], name, Cookie=f"__buntime_preview={token}; a=b")).status == 200
    assert (await visit(hosts[1], name, f"/p?{QUERY}={token}&q=1")).status == 200
    assert asked.requests[-1].target == "/p?q=1"
    sent_on = await visit(hosts[1], name, f"/p?{QUERY}={token}&q=1", Accept="text/html")
    assert (sent_on.status, sent_on.header("Location")) == (302, f"http://{name}/p?q=1")
    assert [request.header("X-Preview-Token") for request in asked.requests[:2]] == [None, None]
    assert asked.requests[1].all("Cookie") == ["a=b"]


async def test_a_websocket_of_a_preview_passes_through_another_host(
    hosts: Sequence[Host], http: aiohttp.ClientSession
) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        while some := await reader.read(100):
            writer.write(some)

    server = await asyncio.start_server(FakeSession(serve=echo), "127.0.0.1", free_port())
    port = server.sockets[0].getsockname()[1]
    session = await session_on(http, hosts[0], preview={"visibility": "public", "ports": [port]})
    reader, writer = await asyncio.open_connection("127.0.0.1", hosts[1].port)
    lines = ["GET / HTTP/1.1", f"Host: {name_of(session, port, hosts[1])}", "Connection: Upgrade", "Upgrade: websocket"]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    async with asyncio.timeout(SECONDS):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
    writer.close()
    server.close()
    server.close_clients()


async def test_a_preview_that_has_moved_is_found_and_one_in_a_circle_is_given_up(
    hosts: Sequence[Host], http: aiohttp.ClientSession, program: tuple[FakeSession, int]
) -> None:
    _, port = program
    session = await session_on(http, hosts[0], preview={"visibility": "public", "ports": [port]})
    hosts[1].owners.elsewhere[session] = hosts[2].me
    assert (await visit(hosts[1], name_of(session, port, hosts[1]))).status == 200
    hosts[2].owners.elsewhere[session] = hosts[1].me
    await asyncio.sleep(1.2)  # a permission is remembered for a second
    answer = await visit(hosts[1], name_of(session, port, hosts[1]))
    assert (answer.status, answer.header("Retry-After")) == (503, "1")


async def test_a_host_that_is_away_is_a_typed_answer_to_visitors(
    hosts: Sequence[Host], http: aiohttp.ClientSession, program: tuple[FakeSession, int]
) -> None:
    _, port = program
    session = await session_on(http, hosts[0], preview={"visibility": "public", "ports": [port]})
    hosts[1].owners.elsewhere[session] = Peer(hosts[0].me.id, f"127.0.0.1:{free_port()}")
    answer = await visit(hosts[1], name_of(session, port, hosts[1]))
    assert (answer.status, answer.header("X-Preview-Error"), answer.header("Retry-After")) == (503, "unavailable", "1")
    page = await visit(hosts[1], name_of(session, port, hosts[1]), Accept="text/html")
    assert b"<html" in page.body.lower()


async def test_refusals_and_pages_of_the_sessions_host_pass_unchanged(
    hosts: Sequence[Host], http: aiohttp.ClientSession
) -> None:
    port = free_port()
    session = await session_on(http, hosts[0], preview={"visibility": "public", "ports": [port]})
    ours = await visit(hosts[0], name_of(session, port, hosts[0]))
    theirs = await visit(hosts[1], name_of(session, port, hosts[1]))
    assert (theirs.status, theirs.body) == (ours.status, ours.body)
    assert theirs.header("X-Preview-Error") == ours.header("X-Preview-Error")
