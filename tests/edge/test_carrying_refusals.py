"""What clients and visitors try at one host must not cost another one, or more than it would on a host alone."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
import pytest

from buntime.config import BadSetting, from_environment
from buntime.edge import nginx
from buntime.edge.peers import LARGE_BODIES, LARGE_OF_ADDRESS
from buntime.web.quota import STRANGER_LIMIT
from tests.edge.hosts import Host, fleet
from tests.edge.http2 import END_HEADERS, HEADERS, PREFACE, frame
from tests.edge.http2 import field as h2_field
from tests.edge.rig import FakeSession, Message, read_message
from tests.edge.test_carrying import DATA, call, chunks, echo, session_on
from tests.edge.test_carrying_visitors import name_of, visit
from tests.edge.test_tls import DOMAIN, trusting

SECONDS = 20.0  # a guard
MB = 1 << 20


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[Sequence[Host]]:
    async with fleet(tmp_path, 3) as hosts:
        yield hosts


async def answer_without_end(host: Host, method: str, path: str) -> bytes:
    """What HTTP/2 answers to a request of a stranger that has sent some of its body, and says not how much there is."""
    context = trusting(host.config)
    context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection("127.0.0.1", host.port, ssl=context, server_hostname=DOMAIN)
    fields = {":method": method, ":scheme": "https", ":path": path, ":authority": DOMAIN}
    fields |= {"authorization": "Bearer btk_wrong", "content-type": "application/json"}
    writer.write(PREFACE + frame(HEADERS, END_HEADERS, 1, b"".join(h2_field(*each) for each in fields.items())))
    writer.write(frame(DATA, 0, 1, bytes(16_384)) * 3)
    got = b""
    async with asyncio.timeout(SECONDS):
        while b"unauthorized" not in got:
            head = await reader.readexactly(9)
            payload = await reader.readexactly(int.from_bytes(head[:3]))
            if int.from_bytes(head[5:]) == 1 and head[3] in (DATA, HEADERS):
                got += payload
    writer.transport.abort()
    return got


async def test_no_body_of_a_stranger_is_kept(tmp_path: Path) -> None:
    async with fleet(tmp_path, 1, tls=True) as hosts:
        for method in ("GET", "OPTIONS", "DELETE", "POST"):
            assert b"unauthorized" in await answer_without_end(hosts[0], method, "/sessions/ses_" + "a" * 18)
        assert list(hosts[0].config.bodies_dir.rglob("*")) == []


async def test_no_large_body_is_read_while_the_server_is_away(
    hosts: Sequence[Host], http: aiohttp.ClientSession
) -> None:
    hosts[0].config.api_socket.unlink()
    hosts[0].config.edge_socket.unlink()
    reader, writer = await asyncio.open_connection("127.0.0.1", hosts[0].port)
    writer.write(b"POST /execute HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n" + bytes(MB))
    async with asyncio.timeout(SECONDS):
        answer = await read_message(reader)
    writer.close()
    assert answer is not None
    assert (answer.status, answer.header("Retry-After")) == (503, "1")


async def test_a_refusal_before_the_body_is_read_counts(hosts: Sequence[Host], http: aiohttp.ClientSession) -> None:
    session = await session_on(http, hosts[0])

    async def left() -> int:
        return int((await call(http, hosts[1], "GET", "/account")).headers["X-RateLimit-Remaining"])

    before = await left()
    missing = f"/files/content?sessionId=ses_{'z' * 18}&path=f"
    assert (await call(http, hosts[1], "PUT", missing, chunks(bytes(MB // 4)))).refusal == (404, "session_not_found")
    assert (await call(http, hosts[1], "PUT", "/files/content?x=1", chunks(bytes(MB // 4)))).status == 400
    assert await left() == before - 3
    hosts[1].owners.elsewhere[session] = hosts[2].me  # where it was
    target = f"/files/content?sessionId={session}&path=f"
    there = int((await call(http, hosts[2], "GET", "/account")).headers["X-RateLimit-Remaining"])
    assert (await call(http, hosts[1], "PUT", target, chunks(bytes(MB // 4)), Content_Type="x/y")).status == 200
    assert await left() == before - 5
    assert int((await call(http, hosts[2], "GET", "/account")).headers["X-RateLimit-Remaining"]) == there - 1


async def test_wrong_keys_with_bodies_of_unknown_length_are_bounded(
    hosts: Sequence[Host], http: aiohttp.ClientSession
) -> None:
    refusals = [
        (await call(http, hosts[0], "POST", "/execute", chunks(b"{}"), Authorization="Bearer btk_no")).status
        for _ in range(STRANGER_LIMIT + 1)
    ]
    assert refusals == [401] * STRANGER_LIMIT + [429]


async def test_a_preview_that_moves_after_its_visitor_was_let_in_says_nothing_of_the_fleet(
    hosts: Sequence[Host], http: aiohttp.ClientSession
) -> None:
    program = FakeSession()
    server = await asyncio.start_server(program, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    session = await session_on(http, hosts[0], preview={"visibility": "public", "ports": [port]})
    name = name_of(session, port, hosts[0])
    assert (await visit(hosts[0], name)).status == 200  # which is remembered for a second
    server.close()
    server.close_clients()
    hosts[0].owners.elsewhere[session] = hosts[1].me
    answer = await visit(hosts[0], name)
    assert (answer.status, answer.header("X-Preview-Error"), answer.header("Retry-After")) == (503, "unavailable", "1")
    assert not [key for key, _ in answer.fields if key.lower().startswith("x-peer")]


async def raw(host: Host, line: str, *fields: str, body: bytes = b"") -> Message:
    reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
    head = [line, *fields, f"Authorization: Bearer {host.key}", f"Content-Length: {len(body)}", "Connection: close"]
    writer.write("\r\n".join([*head, "", ""]).encode() + body)
    async with asyncio.timeout(SECONDS):
        answer = await read_message(reader)
    writer.close()
    assert answer is not None
    return answer


async def test_a_request_to_the_api_is_one_on_every_host(hosts: Sequence[Host], http: aiohttp.ClientSession) -> None:
    session = await session_on(http, hosts[0], preview={"visibility": "public", "ports": [8080]})
    visited = f"Host: {name_of(session, 8080, hosts[1])}"
    sent = ("Content-Type: application/json",)
    for host in hosts[:2]:
        target = f"POST http://127.0.0.1:{host.port}/execute HTTP/1.1"
        answer = await raw(host, target, visited, *sent, body=json.dumps(echo(session)).encode())
        assert (answer.status, b"hi" in answer.body) == (200, True)


async def test_what_a_program_says_to_nginx_is_not_heeded_on_any_host(
    hosts: Sequence[Host], http: aiohttp.ClientSession
) -> None:
    told = {
        "X-Accel-Redirect": "@peer", "X-Peer": hosts[2].me.id, "X-Peer-Address": hosts[2].me.address, "X-Untaken": "1",
    }  # fmt: skip
    lines = "".join(f"{name}: {value}\r\n" for name, value in told.items()).encode()
    program = FakeSession(answer=lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n" + lines + b"\r\nmine")
    server = await asyncio.start_server(program, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    session = await session_on(http, hosts[0], preview={"visibility": "public", "ports": [port]})
    for host in hosts[:2]:
        answer = await visit(host, name_of(session, port, host))
        assert (answer.status, answer.body, answer.header("X-Accel-Redirect")) == (200, b"mine", None)
    assert len(program.requests) == 2
    server.close()
    server.close_clients()


async def test_connections_to_one_session_are_bounded_over_all_hosts(
    tmp_path: Path, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nginx, "CONNECTIONS_OF_HOST", 2)
    came = asyncio.Semaphore(0)

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        came.release()
        await reader.read()

    server = await asyncio.start_server(FakeSession(serve=silent), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with fleet(tmp_path, 3) as hosts:
        session = await session_on(http, hosts[0], preview={"visibility": "public", "ports": [port]})
        async with asyncio.TaskGroup() as group, asyncio.timeout(SECONDS):
            open_ones = [group.create_task(visit(host, name_of(session, port, host))) for host in (hosts[1], hosts[2])]
            for _ in open_ones:
                await came.acquire()
            for host in hosts:
                assert (await visit(host, name_of(session, port, host))).status == 429
            server.close()
            server.close_clients()
            assert [(await one).status for one in open_ones] == [502, 502]


@pytest.mark.parametrize("settings", [{"BUNTIME_PEER": "10.1.0.7:8000"}, {"BUNTIME_PORT": "8443"}])
def test_clients_and_hosts_cannot_share_a_port(settings: dict[str, str]) -> None:
    with pytest.raises(BadSetting, match="BUNTIME_PEER"):
        from_environment({"BUNTIME_STORE": "postgresql://db/b", **settings})


async def test_slow_large_bodies_of_one_address_leave_room_for_others(hosts: Sequence[Host]) -> None:
    request = (
        b"POST /execute HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nAuthorization: Bearer %s\r\n\r\n1\r\n{\r\n"
    )
    opened = [await asyncio.open_connection("127.0.0.1", hosts[0].port) for _ in range(LARGE_OF_ADDRESS)]
    for _, writer in opened:
        writer.write(request % hosts[0].key.encode())
    try:
        async with asyncio.timeout(SECONDS):
            while (await one_more(hosts[0], request)).status != 429:
                pass
        assert LARGE_OF_ADDRESS < LARGE_BODIES
    finally:
        for _, writer in opened:
            writer.transport.abort()


async def one_more(host: Host, request: bytes) -> Message:
    reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
    writer.write(request % host.key.encode() + b"0\r\n\r\n")
    answer = await read_message(reader)
    writer.close()
    assert answer is not None
    return answer
