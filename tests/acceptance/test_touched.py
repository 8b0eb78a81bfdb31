"""Data that arrives on an open connection wakes a suspended session.

Silence, WebSocket pings and pongs, and answers to the session's own requests do not. These tests send from the host, as
the edge does.
"""

import json
import socket
import time
from collections.abc import Callable

import pytest
from websockets.sync.client import connect

from buntime.sandboxes.kernel.host import claim_part
from tests.acceptance import traces
from tests.acceptance.client import Session
from tests.acceptance.conftest import Servers
from tests.acceptance.server import Server

pytestmark = pytest.mark.sandbox

PORT = 3000
# Echoes each line.
UP = "() => require('fs').writeFileSync('up', '')"
ECHO = f"require('net').createServer(c => c.pipe(c)).listen({PORT}, '0.0.0.0', {UP})"
# Queries localhost from the host's name server by TCP, so that an answer arrives at a high port.
ASKING = """
const fs = require("fs"), net = require("net");
const server = fs.readFileSync("/etc/resolv.conf", "utf8").match(/nameserver (\\S+)/)[1];
const question = Buffer.from("001b" + "000101000001000000000000" + "096c6f63616c686f73740000010001", "hex");
setInterval(() => {
  const asked = net.connect(53, server, () => asked.write(question));
  asked.on("error", () => {}).on("data", () => (fs.appendFileSync("answers", "."), asked.destroy()));
}, 200);
"""
# Bun pings a silent WebSocket before this timeout, which is the shortest that Bun accepts.
WEBSOCKET = """
const { appendFileSync } = require("node:fs");
Bun.serve({
  port: 8080,
  fetch: (request, server) => (server.upgrade(request) ? undefined : new Response("up")),
  websocket: {
    idleTimeout: 8,
    message: (socket, message) => { socket.send(message); },
    pong: () => appendFileSync("pongs", "."),
  },
});
"""
PINGED_SECONDS = 10  # longer than the time between Bun's pings
IDLE_SECONDS = 4  # well above the time between two checks of connections
SILENT_SECONDS = 3.0  # several checks of connections


def _until(seen: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 30
    while not seen():
        assert time.monotonic() < deadline, f"timed out waiting for: {what}"
        time.sleep(0.05)


def _state(session: Session) -> str:
    return str(session.look().done()["state"])


def _address(server: Server, session: Session) -> str:
    record = server.config.data_dir / "sandboxes" / traces.sandbox_of(server.config, session.id) / "record.json"
    return claim_part(server.config).address(json.loads(record.read_text())["slot"])


def _echo(connection: socket.socket, line: bytes) -> None:
    connection.sendall(line)
    with connection.makefile("rb") as answers:
        assert answers.readline() == line


def _started(servers: Servers, idle_seconds: int) -> Server:
    return servers.start(BUNTIME_IDLE_AFTER=str(idle_seconds), BUNTIME_TICK_MS="50")


def _serving(server: Server) -> tuple[Session, socket.socket]:
    """Yields a session with an echo server, and a connection that has carried data."""
    session = server.new_client().open()
    session.output(f'(bun -e "{ECHO}" >/dev/null 2>&1 &) ; until [ -e up ]; do sleep 0.05; done')
    connection = socket.create_connection((_address(server, session), PORT), timeout=30)
    _echo(connection, b"first\n")
    return session, connection


def test_bytes_on_an_open_connection_wake_a_suspended_session(servers: Servers) -> None:
    server = _started(servers, 1)
    session, connection = _serving(server)
    with connection:
        for line in (b"one\n", b"two\n"):
            _until(lambda: _state(session) == "idle", "the session to be suspended")
            _echo(connection, line)  # an answer proves that the session is awake
        _until(lambda: _state(session) == "idle", "the session to be suspended again")


def test_bytes_on_an_open_connection_keep_a_session_awake_and_a_silent_one_does_not(servers: Servers) -> None:
    server = _started(servers, IDLE_SECONDS)
    session, connection = _serving(server)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
    with connection:
        deadline = time.monotonic() + 2 * IDLE_SECONDS
        while time.monotonic() < deadline:
            _echo(connection, b"again\n")
            time.sleep(0.2)
            assert _state(session) == "active"
        _until(lambda: _state(session) == "idle", "the session to be suspended")
        deadline = time.monotonic() + SILENT_SECONDS
        while time.monotonic() < deadline:
            assert _state(session) == "idle", "keep-alives must not count as activity"
            time.sleep(0.1)
        _echo(connection, b"still open\n")


def test_answers_to_what_a_session_itself_asks_are_no_activity(servers: Servers) -> None:
    server = _started(servers, IDLE_SECONDS)
    session = server.new_client().open()
    session.write("ask.js", ASKING).done()
    session.output("(bun ask.js >/dev/null 2>&1 &); until [ -s answers ]; do sleep 0.05; done")
    _until(lambda: _state(session) == "idle", "the session to be suspended")


def test_pings_and_pongs_of_an_open_websocket_are_no_activity_and_its_messages_are(servers: Servers) -> None:
    server = _started(servers, PINGED_SECONDS)
    session = server.new_client().open()
    session.write("server.js", WEBSOCKET).done()
    session.output("(bun server.js >/dev/null 2>&1 &); until curl -s localhost:8080; do sleep 0.05; done")
    host = f"{session.id.replace('_', '-')}.localhost:{session.client.port}"
    with (
        socket.create_connection(("127.0.0.1", session.client.port), timeout=30) as stream,
        connect(f"ws://{host}", sock=stream, ping_interval=None) as tab,
    ):
        for message in ("one", "two"):
            _until(lambda: _state(session) == "idle", "the session to be suspended")
            for _ in range(3):  # with pauses, so that each is its own segment even on a busy host
                tab.ping()
                time.sleep(1.5)  # longer than the time between two checks of connections
                assert _state(session) == "idle", "a client's pings must not count as activity"
            tab.send(message)
            assert tab.recv(timeout=30) == message  # only an awake session answers
            _until(lambda: _state(session) == "active", "the session to wake")
    assert session.output("cat pongs"), "Bun must have pinged, and the client must have answered"
