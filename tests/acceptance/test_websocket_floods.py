"""Clients that never read flood a session with WebSocket frames, while another session is used."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance.client import Client, Session
from tests.acceptance.conftest import Servers
from tests.acceptance.server import Server

pytestmark = pytest.mark.sandbox

FRAMES = Path(__file__).with_name("inside") / "frames.py"
SECONDS, CONNECTIONS, PATIENCE = 4.0, 8, 60.0
MOST_MB = 64  # the most memory that the floods may cost nginx and the server together; they send more than this
ECHO = """
Bun.serve({
  port: 8080, idleTimeout: 0,
  fetch: (request, server) => (server.upgrade(request) ? undefined : new Response("hello")),
  websocket: { message: (socket, message) => { socket.send(message); }, backpressureLimit: 1 << 20 },
});
"""


@pytest.mark.parametrize("size", [16, 1 << 16])
@pytest.mark.parametrize("way", ["preview", "terminal"])
def test_frames_that_nobody_reads_cost_bounded_memory_and_no_request_of_others(
    servers: Servers, way: str, size: int
) -> None:
    server = servers.start(pool_size=2)
    attacker, neighbour = server.new_client(), server.new_client()
    session, other = attacker.open(preview={"visibility": "public"}), neighbour.open()
    if way == "preview":
        session.write("server.ts", ECHO).done()
        session.output("nohup bun server.ts > /tmp/log 2>&1 & until curl -s localhost:8080; do sleep 0.05; done")
    other.output("true")
    before = _memory(server)
    with ExitStack() as stack:
        head = _head(attacker, session, way)
        floods = [stack.enter_context(_flood(attacker, head, size)) for _ in range(CONNECTIONS)]
        for flood in floods:
            stack.callback(flood.kill)
            assert flood.stdout is not None
            assert flood.stdout.readline() == "open\n"
        peak = max(_seen(server, other))
        for flood in floods:
            flood.wait(PATIENCE)
    assert (peak - before) >> 10 < MOST_MB
    other.delete().done()
    session.delete().done()


def _flood(client: Client, head: str, size: int) -> "subprocess.Popen[str]":
    command = [sys.executable, str(FRAMES), str(client.port), head, str(size), str(SECONDS)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _head(client: Client, session: Session, way: str) -> str:
    path, host = "/", f"{session.id.replace('_', '-')}.localhost:{client.port}"
    if way == "terminal":
        path, host = f"/sessions/{session.id}/terminal", f"localhost:{client.port}"
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Authorization: Bearer {client.key}\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )


def _seen(server: Server, other: Session) -> Iterator[int]:
    """Samples the memory while the neighbour runs commands, which must all succeed."""
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends:
        assert other.output("echo good") == "good\n"
        yield _memory(server)


def _memory(server: Server) -> int:
    """Returns the memory of the server and nginx's workers in KB."""
    master = int((server.config.run_dir / "edge/nginx.pid").read_text())
    workers = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    parent = Path(f"/proc/{master}/stat").read_text().rpartition(") ")[2].split()[1]
    return sum(_resident(pid) for pid in (parent, *workers))


def _resident(pid: str) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()[0])
