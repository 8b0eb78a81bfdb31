"""Any host answers: requests for sessions of another host are carried there, and say nothing of it."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import connect

from buntime.ports import Peer, Run, RunResult
from buntime.testing.sandboxes import FakeSandbox, small_shell
from tests.app.serving import Answer
from tests.edge.hosts import Host, fleet
from tests.edge.http2 import END_HEADERS, END_STREAM, HEADERS, PREFACE, frame
from tests.edge.http2 import field as h2_field
from tests.edge.rig import read_message
from tests.edge.test_tls import DOMAIN, trusting
from tests.ports import free_port

MB = 1 << 20
LARGE = bytes(range(256)) * 4096 * 3  # 3 MB
SECONDS = 60.0  # a guard
DATA = 0  # a frame of HTTP/2


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[Sequence[Host]]:
    async with fleet(tmp_path, 3) as hosts:
        yield hosts


async def call(
    http: aiohttp.ClientSession, host: Host, method: str, path: str, body: Any = None, **headers: str
) -> Answer:
    """Sends a list or a dictionary as JSON, and an iterator in chunks."""
    sent = {"Authorization": f"Bearer {host.key}", "Content-Type": "application/json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    content = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
    content = io.BytesIO(content) if isinstance(content, bytes) else content
    async with asyncio.timeout(SECONDS):
        async with http.request(method, host.url + path, data=content, headers=sent) as answer:
            return Answer(answer.status, answer.headers, await answer.read())


async def session_on(http: aiohttp.ClientSession, host: Host, **fields: object) -> str:
    made = await call(http, host, "POST", "/sessions/create", fields)
    assert made.status == 200, made.body
    session: str = made.json["sessionId"]
    assert host.store.sessions[session].host == host.me.id
    return session


async def chunks(content: bytes, size: int = 100_000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def echo(session: str, text: str = "hi") -> dict[str, str]:
    return {"sessionId": session, "command": f"echo {text}"}


async def test_an_execute_through_another_host_runs_where_the_session_is(
    hosts: Sequence[Host], http: aiohttp.ClientSession
) -> None:
    session = await session_on(http, hosts[0])
    answer = await call(http, hosts[1], "POST", "/execute", echo(session), X_Request_Id="mine")
    assert (answer.status, answer.json["stdout"]) == (200, "hi\n")
    assert answer.headers["X-Request-Id"] == "mine"
    for name, value in (("Content-Type", "application/json"), ("Cache-Control", "no-store")):
        assert answer.headers.getall(name) == [value]  # type: ignore[attr-defined]
    assert not [name for name in answer.headers if name.lower().startswith(("x-peer", "x-accel", "x-buntime"))]
    assert (hosts[1].owners.asked, hosts[0].owners.asked) == ([session], [])


async def test_the_first_host_counts_a_request_and_no_other_one(
    hosts: Sequence[Host], http: aiohttp.ClientSession
) -> None:
    session = await session_on(http, hosts[0])

    async def left(host: Host, method: str = "GET", path: str = "/account", body: Any = None) -> int:
        answer = await call(http, host, method, path, body)
        assert answer.status == 200, answer.body
        return int(answer.headers["X-RateLimit-Remaining"])

    here, there = await left(hosts[1]), await left(hosts[0])
    assert await left(hosts[1], "POST", "/execute", echo(session)) == here - 1
    assert await left(hosts[1], "PUT", f"/files/content?sessionId={session}&path=f", chunks(LARGE)) == here - 2
    assert await left(hosts[1], "POST", "/execute", echo(session, "x" * 2 * MB)) == here - 3
    assert await left(hosts[0]) == there - 1


async def test_the_path_and_the_query_pass_as_they_were_sent(
    hosts: Sequence[Host], http: aiohttp.ClientSession
) -> None:
    session = await session_on(http, hosts[0])
    target = f"/files/content?sessionId={session}&path=a%20b%2Fc%C3%A9"
    assert (await call(http, hosts[1], "PUT", target, b"x", Content_Type="x/y")).status == 200
    assert (await call(http, hosts[0], "GET", target)).body == b"x"
    named = await session_on(http, hosts[0], name="a-b")
    found = await call(http, hosts[2], "POST", "/sessions/name%3Aa%2Db/wake")
    assert (found.status, found.body) == (200, found.body)
    assert hosts[2].owners.asked == [named]


@pytest.mark.parametrize(
    ("size", "is_chunked"),
    [(10, False), (10, True), (MB - 100, False), (2 * MB, False), (2 * MB, True), (99 * MB, False)],
)
async def test_a_json_body_of_any_size_arrives_whole(
    hosts: Sequence[Host], http: aiohttp.ClientSession, size: int, is_chunked: bool
) -> None:
    session = await session_on(http, hosts[0], resourceLimits={"disk": 1024})
    body = {**echo(session), "files": [{"path": f"f{n}", "content": "x" * (size // 11)} for n in range(11)]}
    content = json.dumps(body).encode()
    answer = await call(http, hosts[1], "POST", "/execute", chunks(content) if is_chunked else content)
    assert answer.status == 200, answer.body
    kept = hosts[0].sandbox_of(session).volume.files
    assert [len(file.content) for file in kept.values()] == [size // 11] * 11
    assert hosts[1].owners.asked == [session]
    assert list(hosts[1].config.bodies_dir.rglob("*")) == []


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("size", [0, 5, 100_000, MB + 1, 3 * MB])
async def test_a_file_of_any_size_goes_to_another_host_and_comes_back(
    hosts: Sequence[Host], http: aiohttp.ClientSession, size: int, is_chunked: bool
) -> None:
    session = await session_on(http, hosts[0])
    async with guest_of(hosts[0].sandbox_of(session)):
        target, content = f"/files/content?sessionId={session}&path=f", (LARGE * 2)[:size]
        sent = await call(http, hosts[1], "PUT", target, chunks(content) if is_chunked else content, Content_Type="x/y")
        assert (sent.status, sent.json["size"]) == (200, size)
        assert int(sent.headers["X-RateLimit-Remaining"]) > 0
        got = await call(http, hosts[1], "GET", target, Range="bytes=2-") if size > 2 else None
        assert got is None or (got.status, got.body) == (206, content[2:])
        assert got is None or int(got.headers["X-RateLimit-Remaining"]) > 0


@asynccontextmanager
async def guest_of(sandbox: FakeSandbox) -> AsyncIterator[None]:
    """Serves the tickets of the sandbox's files, as its guest does."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            message = await read_message(reader)
            assert message is not None
            ticket = message.target.removeprefix("/")
            if message.line.startswith("PUT"):
                sandbox.files.carried[ticket] = message.body
                writer.write(b"HTTP/1.1 400 Taken\r\nContent-Length: 0\r\n\r\n")
            else:
                content = sandbox.files.carried[ticket]
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(content), content))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 24)
    sandbox.files.guest = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield
    finally:
        server.close()
        server.close_clients()


async def test_a_client_may_wait_for_the_word_to_go_on(hosts: Sequence[Host], http: aiohttp.ClientSession) -> None:
    session = await session_on(http, hosts[0])
    content = json.dumps(echo(session)).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", hosts[1].port)
    lines = ["POST /execute HTTP/1.1", "Host: a", f"Authorization: Bearer {hosts[1].key}", "Expect: 100-continue"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(content)}", "", ""]
    writer.write("\r\n".join(lines).encode())
    async with asyncio.timeout(SECONDS):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        writer.write(content)
        answer = await read_message(reader)
    writer.close()
    assert answer is not None
    assert json.loads(answer.body)["stdout"] == "hi\n"


@pytest.mark.parametrize("size", [10, 2 * MB])
@pytest.mark.parametrize("has_length", [True, False])
async def test_a_body_of_http2_arrives_whole(tmp_path: Path, size: int, has_length: bool) -> None:
    async with fleet(tmp_path, tls=True) as hosts:
        context = trusting(hosts[0].config)
        context.load_verify_locations(str(hosts[1].config.tls_cert))
        async with aiohttp.ClientSession() as http, asyncio.timeout(SECONDS):
            url = f"https://127.0.0.1:{hosts[0].port}/sessions/create"
            sent = {"Authorization": f"Bearer {hosts[0].key}"}
            async with http.post(url, headers=sent, ssl=context, server_hostname=DOMAIN) as made:
                session = (await made.json())["sessionId"]
            content = json.dumps({"sessionId": session, "path": "f", "content": "x" * size}).encode()
            assert b'"size":%d' % size in await post_h2(hosts[1], "/files/write", content, has_length=has_length)


async def post_h2(host: Host, path: str, content: bytes, *, has_length: bool) -> bytes:
    """Sends a request by HTTP/2. Returns the frames of the answer."""
    context = trusting(host.config)
    context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection("127.0.0.1", host.port, ssl=context, server_hostname=DOMAIN)
    fields = {":method": "POST", ":scheme": "https", ":path": path, ":authority": DOMAIN}
    fields |= {"authorization": f"Bearer {host.key}", "content-type": "application/json"}
    fields |= {"content-length": str(len(content))} if has_length else {}
    writer.write(PREFACE + frame(HEADERS, END_HEADERS, 1, b"".join(h2_field(*each) for each in fields.items())))
    room, got, rest = 65_535, b"", content
    while True:
        while rest and room:
            part = rest[: min(room, 16_384)]
            rest, room = rest[len(part) :], room - len(part)
            writer.write(frame(DATA, 0 if rest else END_STREAM, 1, part))
        head = await reader.readexactly(9)
        payload = await reader.readexactly(int.from_bytes(head[:3]))
        kind, stream = head[3], int.from_bytes(head[5:])
        if kind == 8 and stream == 1:
            room += int.from_bytes(payload)  # nginx's window for the connection is larger
        if kind == 4 and not head[4]:
            for at in range(0, len(payload), 6):
                if payload[at : at + 2] == b"\0\x04":
                    room += int.from_bytes(payload[at + 2 : at + 6]) - 65_535
        if stream == 1 and kind in (DATA, HEADERS):
            got += payload
            if head[4] & END_STREAM:
                writer.transport.abort()
                return got


async def test_a_repeat_with_an_idempotency_key_gets_the_first_answer_from_any_host(tmp_path: Path) -> None:
    ran: list[str] = []

    async def counting(run: Run, sandbox: FakeSandbox) -> RunResult:
        ran.append(run.command or "")
        return await small_shell(run, sandbox)

    async with fleet(tmp_path, 2, counting) as hosts, aiohttp.ClientSession() as http:
        session = await session_on(http, hosts[0])
        answers = [
            await call(http, host, "POST", "/execute", echo(session), Idempotency_Key="once")
            for host in (hosts[1], hosts[0], hosts[1])
        ]
        assert [answer.json["stdout"] for answer in answers] == ["hi\n"] * 3
        assert [answer.headers.get("Idempotent-Replayed") for answer in answers] == [None, "true", "true"]
        assert ran == ["echo hi"]
        other = await call(http, hosts[1], "POST", "/execute", echo(session, "no"), Idempotency_Key="once")
        assert other.refusal == (422, "idempotency_key_reused")


async def test_streams_pass_as_they_come(hosts: Sequence[Host], http: aiohttp.ClientSession) -> None:
    session = await session_on(http, hosts[0])
    answer = await call(http, hosts[1], "POST", "/execute", {**echo(session), "stream": True})
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert b"hi" in answer.body
    watch = f"{hosts[1].url}/files/watch?sessionId={session}&path=/workspace"
    async with http.get(watch, headers={"Authorization": f"Bearer {hosts[1].key}"}) as watching:
        assert watching.status == 200
        async with asyncio.timeout(SECONDS):
            assert await watching.content.readany()  # before the stream has ended


async def test_a_terminal_opens_through_another_host(hosts: Sequence[Host], http: aiohttp.ClientSession) -> None:
    session = await session_on(http, hosts[0])
    url = f"{hosts[1].url.replace('http', 'ws')}/sessions/{session}/terminal"
    headers = {"Authorization": f"Bearer {hosts[1].key}"}
    async with connect(url, additional_headers=headers, compression=None) as terminal, asyncio.timeout(SECONDS):
        assert json.loads(await terminal.recv())["type"] == "ready"
        await terminal.send(b"echo hello\n")
        seen = b""
        while b"hello\r\n" not in seen:
            message = await terminal.recv()
            seen += message if isinstance(message, bytes) else b""
    assert len(hosts[0].sandbox_of(session).terminals.all) == 1


async def test_work_ends_on_the_sessions_host_when_the_client_leaves(tmp_path: Path) -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def lasting(run: Run, sandbox: FakeSandbox) -> RunResult:
        began.set()
        try:
            await asyncio.sleep(SECONDS)
        finally:
            ended.set()
        return await small_shell(run, sandbox)

    async with fleet(tmp_path, 2, lasting) as hosts, aiohttp.ClientSession() as http:
        session = await session_on(http, hosts[0])
        asking = asyncio.create_task(call(http, hosts[1], "POST", "/execute", echo(session)))
        async with asyncio.timeout(SECONDS):
            await began.wait()
            asking.cancel()
            await ended.wait()


async def test_a_client_cannot_speak_as_a_host(hosts: Sequence[Host], http: aiohttp.ClientSession) -> None:
    claims = {
        "X-Buntime-Hops": "3", "X-Buntime-Next": f"{hosts[2].me.id}@{hosts[2].me.address}",
        "X-Buntime-Peer": hosts[1].me.id, "X-Buntime-Where": "1", "X-Forwarded-For": "192.0.2.9",
        "X-Peer": hosts[2].me.id, "X-Peer-Address": hosts[2].me.address, "X-Accel-Redirect": "@peer",
    }  # fmt: skip
    made = await call(http, hosts[0], "POST", "/sessions/create", {}, **claims)
    session = made.json["sessionId"]
    assert hosts[0].store.sessions[session].host == hosts[0].me.id
    answer = await call(http, hosts[1], "POST", "/execute", echo(session), **claims)
    assert answer.json["stdout"] == "hi\n"
    assert int(answer.headers["X-RateLimit-Remaining"]) > 0, "the request was counted"
    target = f"/files/content?sessionId={session}&path=f"
    assert (await call(http, hosts[1], "PUT", target, b"x", **claims)).status == 200
    assert (await call(http, hosts[1], "GET", target, **claims)).body == b"x"
    assert (await call(http, hosts[1], "PUT", target, chunks(LARGE), **claims)).status == 200
    events = (await call(http, hosts[0], "GET", "/events")).json["events"]
    addresses = {event["data"]["by"].get("address") for event in events if event["data"]["by"]["actor"] == "key"}
    assert addresses == {"127.0.0.1"}


async def test_the_clients_own_address_and_request_id_reach_the_sessions_host(
    hosts: Sequence[Host], http: aiohttp.ClientSession
) -> None:
    session = await session_on(http, hosts[0])
    answer = await call(http, hosts[1], "DELETE", f"/sessions/{session}", X_Request_Id="mine")
    assert answer.status in (200, 204)
    events = (await call(http, hosts[2], "GET", "/events")).json["events"]
    [deleted] = [event for event in events if event["type"] == "session.deleted"]
    assert (deleted["requestId"], deleted["data"]["by"]["address"]) == ("mine", "127.0.0.1")


async def test_a_session_that_has_moved_is_found_by_one_more_hop(
    hosts: Sequence[Host], http: aiohttp.ClientSession
) -> None:
    session = await session_on(http, hosts[0])
    hosts[1].owners.elsewhere[session] = hosts[2].me  # where it was
    answer = await call(http, hosts[1], "POST", "/execute", echo(session))
    assert answer.json["stdout"] == "hi\n"
    assert hosts[2].owners.asked == [session]
    target = f"/files/content?sessionId={session}&path=f"
    assert (await call(http, hosts[1], "PUT", target, chunks(LARGE), Content_Type="x/y")).status == 200
    assert (await call(http, hosts[1], "PUT", target, b"x", Content_Type="x/y")).status == 200


async def test_hosts_that_send_a_request_in_a_circle_give_up(
    hosts: Sequence[Host], http: aiohttp.ClientSession
) -> None:
    session = await session_on(http, hosts[0])
    hosts[0].owners.elsewhere[session], hosts[1].owners.elsewhere[session] = hosts[1].me, hosts[0].me
    target = f"/files/content?sessionId={session}&path=f"
    for method, path, body in (
        ("POST", "/execute", echo(session)),
        ("GET", target, None),
        ("PUT", target, chunks(LARGE)),
    ):
        answer = await call(http, hosts[0], method, path, body)
        assert answer.refusal == (503, "unavailable"), path
        assert answer.headers["Retry-After"] == "1"
    assert len(hosts[0].owners.asked + hosts[1].owners.asked) == 4 + 3 + 3, "the first host guesses after the first"


async def test_a_host_that_is_away_is_one_typed_answer(hosts: Sequence[Host], http: aiohttp.ClientSession) -> None:
    session = await session_on(http, hosts[0])
    hosts[1].owners.elsewhere[session] = Peer(hosts[0].me.id, f"127.0.0.1:{free_port()}")
    target = f"/files/content?sessionId={session}&path=f"
    for method, path, body in (
        ("POST", "/execute", echo(session)),
        ("GET", target, None),
        ("PUT", target, LARGE),
        ("PUT", target, chunks(LARGE)),
    ):
        answer = await call(http, hosts[1], method, path, body)
        assert answer.refusal == (503, "unavailable"), (method, path)
        assert (answer.headers["Retry-After"], answer.error["retryable"]) == ("1", True)
    assert len(hosts[1].owners.asked) == 1


async def test_a_wrong_guess_costs_one_more_hop(hosts: Sequence[Host], http: aiohttp.ClientSession) -> None:
    session = await session_on(http, hosts[0])
    assert (await call(http, hosts[1], "POST", "/execute", echo(session))).status == 200
    hosts[0].owners.elsewhere[session] = hosts[1].me  # it has moved to the host that guesses
    hosts[0].store.sessions[session] = replace(hosts[0].store.sessions[session], host=hosts[1].me.id)
    answer = await call(http, hosts[1], "GET", f"/sessions/{session}/metrics")
    assert answer.status == 200, answer.body
    assert hosts[0].owners.asked == [session]
    assert hosts[1].owners.asked == [session]


async def test_work_that_has_begun_is_never_done_again_elsewhere(
    hosts: Sequence[Host], http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await session_on(http, hosts[0])

    async def moved(*_: object) -> None:
        hosts[0].store.sessions[session] = replace(hosts[0].store.sessions[session], host=hosts[1].me.id)
        await hosts[0].owners.here(hosts[0].store.sessions[session])

    monkeypatch.setattr(hosts[0].sandbox_of(session), "run", moved)
    answer = await call(http, hosts[0], "POST", "/execute", echo(session))
    assert answer.refusal == (503, "unavailable")
    assert hosts[1].owners.asked == []


async def test_what_the_first_host_refuses_goes_no_further(hosts: Sequence[Host], http: aiohttp.ClientSession) -> None:
    session = await session_on(http, hosts[0])
    for body in (echo(session), echo(session, "x" * 2 * MB)):
        answer = await call(http, hosts[1], "POST", "/execute", body, Authorization="Bearer btk_wrong")
        assert answer.refusal == (401, "unauthorized")
    target = f"/files/content?sessionId={session}&path=f"
    wrong = await call(http, hosts[1], "PUT", target, chunks(LARGE), Authorization="Bearer btk_wrong")
    assert wrong.refusal == (401, "unauthorized")
    assert hosts[1].owners.asked == []
