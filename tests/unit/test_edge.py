"""A real nginx in front of a small upstream on a Unix socket. Needs root for nginx's workers."""

import asyncio
import io
import json
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from buntime.config import SHARED_RUN_DIR, BadSetting, Config
from buntime.daemon.children import Program, keep_running
from buntime.daemon.tasks import Tasks
from buntime.edge import process
from buntime.edge.nginx import Edge, render
from buntime.plan import load_plans
from tests.ports import free_port
from tests.waiting import eventually

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="nginx's workers need a user of their own: root"),
]


async def echo(request: web.Request) -> web.Response:
    """Answers with the request that reached the upstream."""
    body = await request.read()
    seen = {"path": request.raw_path, "headers": {k.lower(): v for k, v in request.headers.items()}, "size": len(body)}
    return web.json_response(seen, headers={"X-Accel-Redirect": "/secret", "X-Seen": "yes"})


async def stream(request: web.Request) -> web.StreamResponse:
    """Sends one piece, and the next only after a second piece of the client's body."""
    response = web.StreamResponse()
    await response.prepare(request)
    async for piece in request.content.iter_any():
        await response.write(piece)
    return response


async def socket_echo(request: web.Request) -> web.WebSocketResponse:
    answer = web.WebSocketResponse()
    await answer.prepare(request)
    async for message in answer:
        await answer.send_str(message.data)
    return answer


def for_anybody(path: Path) -> None:
    path.chmod(0o666)


@asynccontextmanager
async def upstream(path: Path) -> AsyncIterator[None]:
    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/stream", stream)
    app.router.add_get("/ws", socket_echo)
    app.router.add_route("*", "/{rest:.*}", echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    for_anybody(path)
    try:
        yield
    finally:
        await runner.cleanup()


@dataclass(frozen=True)
class Front:
    url: str
    config: Config
    client: aiohttp.ClientSession


@asynccontextmanager
async def serving(config: Config) -> AsyncIterator[None]:
    SHARED_RUN_DIR.mkdir(mode=0o711, exist_ok=True)
    plans = {"only": replace(load_plans(None)["free"], body_mb=1)}
    async with Tasks() as tasks:
        await process.start_edge(config, plans, tasks)
        yield


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(data_dir=tmp_path, port=free_port())


@pytest.fixture
async def lonely(config: Config) -> AsyncIterator[Front]:
    """Runs an edge whose control plane does not listen."""
    async with serving(config), aiohttp.ClientSession() as client:
        yield Front(f"http://127.0.0.1:{config.port}", config, client)


@pytest.fixture
async def front(lonely: Front) -> AsyncIterator[Front]:
    async with upstream(lonely.config.api_socket):
        yield lonely


async def raw(config: Config, request: bytes) -> tuple[str, dict[str, str], bytes]:
    """Sends bytes that no client library would send. Returns the answer's status line, header and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", config.port)
    writer.write(request)
    head, _, body = (await asyncio.wait_for(reader.read(), 10)).partition(b"\r\n\r\n")
    writer.close()
    status, *lines = head.decode().split("\r\n")
    return status, {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}, body


async def test_a_request_reaches_the_control_plane_as_it_was_sent(front: Front) -> None:
    path = "/a%2Fb//c?x=%20y&z"
    async with front.client.post(URL(front.url + path, encoded=True), data=b"12345") as answer:
        seen = await answer.json()
    assert (seen["path"], seen["size"]) == (path, 5)
    assert seen["headers"]["host"] == front.url.removeprefix("http://")


async def test_forwarded_headers_are_overwritten(front: Front) -> None:
    claimed = {"X-Forwarded-For": "6.6.6.6", "X-Real-IP": "6.6.6.6", "Forwarded": "for=6.6.6.6"}
    async with front.client.get(front.url, headers=claimed | {"X-Forwarded-Proto": "https"}) as answer:
        seen = (await answer.json())["headers"]
    assert (seen["x-forwarded-for"], seen["x-real-ip"], seen["x-forwarded-proto"]) == ("127.0.0.1", "127.0.0.1", "http")
    assert "forwarded" not in seen


async def test_instructions_of_the_upstream_to_nginx_are_ignored_and_hidden(front: Front) -> None:
    async with front.client.get(front.url) as answer:
        assert answer.headers["X-Seen"] == "yes"
        assert "X-Accel-Redirect" not in answer.headers
        assert answer.headers["Server"] == "nginx"


async def test_a_usable_request_id_is_passed_through_and_another_replaced(front: Front) -> None:
    async with front.client.get(front.url, headers={"X-Request-Id": "mine-1"}) as answer:
        assert (await answer.json())["headers"]["x-request-id"] == "mine-1"
    async with front.client.get(front.url, headers={"X-Request-Id": "x" * 129}) as answer:
        assert len((await answer.json())["headers"]["x-request-id"]) == 32


async def test_both_directions_stream_without_buffering(front: Front) -> None:
    first_answered = asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.wait_for(first_answered.wait(), 5)
        yield b"second"

    async with front.client.post(front.url + "/stream", data=pieces()) as answer:
        assert await answer.content.readany() == b"first"
        first_answered.set()
        assert await answer.content.read() == b"second"


async def test_websockets_pass(front: Front) -> None:
    async with front.client.ws_connect(front.url + "/ws") as connection:
        await connection.send_str("hello")
        assert await connection.receive_str() == "hello"


async def test_a_body_over_the_largest_plan_is_refused_in_the_form_of_the_api(front: Front) -> None:
    async with front.client.post(
        front.url, data=io.BytesIO(bytes(3 << 20)), headers={"X-Request-Id": "mine-2"}
    ) as answer:
        error = (await answer.json())["error"]
        assert (answer.status, error["code"], error["retryable"], error["details"]) == (
            413,
            "payload_too_large",
            False,
            {"limit": 1 << 20},
        )
        assert "1 MB" in error["message"]
        assert answer.headers["X-Request-Id"] == "mine-2"


async def test_raw_file_content_has_no_limit_at_the_edge(front: Front) -> None:
    async with front.client.put(front.url + "/files/content?path=x", data=io.BytesIO(bytes(3 << 20))) as answer:
        assert (await answer.json())["size"] == 3 << 20


async def test_without_the_control_plane_the_answer_is_unavailable(lonely: Front) -> None:
    async with lonely.client.post(lonely.url + "/execute", json={}) as answer:
        error = (await answer.json())["error"]
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert (error["code"], error["retryable"]) == ("unavailable", True)
        assert len(answer.headers["X-Request-Id"]) == 32
        assert answer.content_type == "application/json"


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"nonsense\r\n\r\n", 400, "invalid_request"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "invalid_request"),
        (b"GET / HTTP/9.1\r\nHost: x\r\n\r\n", 505, "invalid_request"),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "invalid_request"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"x" * 20_000 + b"\r\n\r\n", 431, "invalid_request"),
        (b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", 405, "method_not_allowed"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "invalid_request"),
    ],
)
async def test_the_edges_own_refusals_have_the_form_of_the_api(
    front: Front, request_bytes: bytes, status: int, code: str
) -> None:
    closing = request_bytes.replace(b"Host: x\r\n", b"Host: x\r\nConnection: close\r\n")
    line, header, body = await raw(front.config, closing)
    assert f" {status}" in line
    assert header["content-type"] == "application/json"
    assert header["x-request-id"]
    assert json.loads(body)["error"]["code"] == code


async def test_localhost_is_served_at_both_loopback_addresses(front: Front) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        if probe.connect_ex(("::1", front.config.port)) != 0:
            pytest.skip("no IPv6 loopback here")
    async with front.client.get(f"http://[::1]:{front.config.port}/") as answer:
        assert answer.status == 200


async def test_a_port_in_use_is_said_in_a_sentence(config: Config) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", config.port))
        other.listen()
        with pytest.raises(process.EdgeFailed, match=f"port {config.port}: Address already in use. Set BUNTIME_PORT"):
            async with serving(config):
                pass


async def test_an_unknown_host_is_said_in_a_sentence(config: Config) -> None:
    with pytest.raises(BadSetting, match=r"BUNTIME_HOST=no\.such\.host\.invalid"):
        async with serving(replace(config, host="no.such.host.invalid")):
            pass


async def test_what_a_killed_server_left_is_stopped_at_the_next_start(config: Config) -> None:
    async with serving(config):
        left = int((config.run_dir / "edge/nginx.pid").read_text())
        os.kill(left, signal.SIGSTOP)  # now it cannot end by itself
        process.stop_left_over(config.run_dir / "edge")
        assert process._members(left) == []


async def test_workers_that_outlived_their_master_are_stopped_too(config: Config, tmp_path: Path) -> None:
    edge = Edge((f"127.0.0.1:{config.port}",), tmp_path / "api.sock", tmp_path / "edge.sock", tmp_path, 1)
    (tmp_path / "nginx.conf").write_text(render(edge))
    nginx = await asyncio.create_subprocess_exec(
        *("nginx", "-p", str(tmp_path), "-e", "stderr", "-c", str(tmp_path / "nginx.conf")), start_new_session=True
    )
    await eventually(lambda: len(process._members(nginx.pid)) == 3)
    nginx.kill()
    await nginx.wait()
    process.stop_left_over(tmp_path)
    assert process._members(nginx.pid) == []


async def test_a_child_that_ends_is_started_again(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    async with Tasks() as tasks:
        tasks.start_daemon(
            keep_running(Program("counter", ("sh", "-c", f"echo x >> {seen}"), first_delay=0.001)), "counter"
        )
        await eventually(lambda: seen.exists() and len(seen.read_text().split()) >= 3)


async def test_a_child_that_does_not_heed_the_signal_is_killed_within_the_deadline(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    stubborn = ("sh", "-c", f"trap '' TERM; echo $$ > {ready}; while :; do sleep 60; done")
    async with Tasks() as tasks:
        tasks.start_daemon(keep_running(Program("stubborn", stubborn, stop_seconds=0.05)), "stubborn")
        await eventually(lambda: ready.exists() and ready.read_text().strip() != "")
    await eventually(
        lambda: process._members(int(ready.read_text())) == []
    )  # the killed process may need a moment to vanish


@pytest.mark.parametrize("steps", range(8))
async def test_a_child_that_is_stopped_while_it_starts_leaves_nothing_of_its_own(tmp_path: Path, steps: int) -> None:
    ready = tmp_path / "ready"
    program = Program(
        "starting", ("sh", "-c", f"sleep 60 & echo $$ > {ready}.part; mv {ready}.part {ready}; wait"), stop_seconds=0.05
    )
    running = asyncio.create_task(keep_running(program))
    for _ in range(steps):
        await asyncio.sleep(0)
    deadline = time.monotonic() + 0.3  # blocks the event loop, so that the loop does not yet know what the child did
    while not ready.exists() and time.monotonic() < deadline:
        time.sleep(0.01)  # noqa: ASYNC251
    running.cancel()
    await asyncio.wait({running})
    if ready.exists():  # otherwise it was cancelled before the child existed
        await eventually(lambda: process._members(int(ready.read_text())) == [])
