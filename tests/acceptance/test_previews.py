"""Previews of session ports through the edge, with a real nginx and real sandboxes."""

import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.acceptance.client import Client, Reply, Session
from tests.acceptance.conftest import Servers

pytestmark = pytest.mark.sandbox

SERVER = """
Bun.serve({
  port: 8080, hostname: "HOSTNAME", maxRequestBodySize: 1 << 30, idleTimeout: 0,
  async fetch(request, server) {
    if (server.upgrade(request)) return;
    const url = new URL(request.url);
    if (url.pathname === "/hash") {
      const hash = new Bun.CryptoHasher("sha256");
      for await (const piece of request.body) hash.update(piece);
      return new Response(hash.digest("hex"));
    }
    const path = url.pathname + url.search;
    if (url.pathname === "/headers") return Response.json({ ...Object.fromEntries(request.headers), path });
    return new Response("hello");
  },
  websocket: { message: (socket, message) => socket.send(message) },
});
"""


def _serve(session: Session, hostname: str = "0.0.0.0") -> None:
    session.write("server.ts", SERVER.replace("HOSTNAME", hostname)).done()
    session.output(
        "nohup bun server.ts > /tmp/log 2>&1 & until curl -s localhost:8080 > /dev/null; do sleep 0.05; done"
    )


def _host(client: Client, session: Session, port: int | None = None) -> str:
    return f"{session.id.replace('_', '-')}{'' if port is None else f'-{port}'}.localhost:{client.port}"


def _see(client: Client, session: Session, path: str = "/", *, port: int | None = None, **headers: str) -> Reply:
    anyone = Client(client.port, None)
    return anyone.call("GET", path, headers={"Host": _host(client, session, port), **headers})


@contextmanager
def _websocket(client: Client, session: Session, query: str = "") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", client.port), timeout=30) as stream:
        stream.sendall(
            f"GET /{query} HTTP/1.1\r\nHost: {_host(client, session)}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            piece = stream.recv(1)
            assert piece, head
            head += piece
        assert head.startswith(b"HTTP/1.1 101 "), head
        yield stream


def _echo(stream: socket.socket, text: bytes) -> bytes:
    """Sends a short masked text frame. Returns what comes back."""
    stream.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
    head = stream.recv(2, socket.MSG_WAITALL)
    return stream.recv(head[1], socket.MSG_WAITALL)


def _sleep(client: Client, session: Session, depth: str) -> None:
    client.call("POST", f"/sessions/{session.id}/sleep", json_body={"depth": depth}).done()


def _state(session: Session) -> str:
    return str(session.look().done()["state"])


@pytest.mark.parametrize("hostname", ["0.0.0.0", "localhost"])
def test_what_listens_on_8080_is_at_the_preview_url_with_the_visitors_own_host(session: Session, hostname: str) -> None:
    client = session.client
    nothing = _see(client, session)
    assert nothing.status == 502
    assert "8080" in nothing.error["message"]
    assert b"<html" in _see(client, session, Accept="text/html").body
    _serve(session, hostname)
    assert _see(client, session).body == b"hello"
    seen = _see(
        client, session, "/headers?a=%20b", Authorization=f"Bearer {client.key}", Cookie="__buntime_preview=x; mine=1"
    ).done()
    assert (seen["host"], seen["path"], seen["cookie"]) == (_host(client, session), "/headers?a=%20b", "mine=1")
    assert "authorization" not in seen


def test_a_large_body_arrives_whole(session: Session) -> None:
    _serve(session)
    body = os.urandom(30 << 20)
    anyone = Client(session.client.port, None)
    sent = anyone.call("POST", "/hash", body=body, headers={"Host": _host(session.client, session)})
    assert sent.body.decode() == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("depth", ["idle", "deep-sleep"])
def test_a_preview_request_wakes_the_session_and_a_burst_shares_one_wake(paid: Client, depth: str) -> None:
    session = paid.open(onWake="cd /workspace && exec bun server.ts")
    _serve(session)
    body = os.urandom(1 << 20)
    for _ in range(2):
        _sleep(paid, session, depth)
        with ThreadPoolExecutor(8) as pool:
            seen = list(pool.map(lambda _: _see(paid, session).body, range(8)))
        assert seen == [b"hello"] * 8
        assert _state(session) == "active"
    _sleep(paid, session, depth)
    sent = Client(paid.port, None).call("POST", "/hash", body=body, headers={"Host": _host(paid, session)})
    assert sent.body.decode() == hashlib.sha256(body).hexdigest()
    _sleep(paid, session, depth)
    with _websocket(paid, session) as stream:
        assert _echo(stream, b"woken") == b"woken"
    session.delete().done()


def test_a_server_that_deep_sleep_ended_is_told_of(session: Session) -> None:
    _serve(session)
    _sleep(session.client, session, "deep-sleep")
    seen = _see(session.client, session)
    assert seen.status == 502
    assert "onWake" in seen.error["message"]


def test_an_open_connection_outlives_a_suspension_and_what_comes_in_wakes(servers: Servers) -> None:
    server = servers.start(BUNTIME_IDLE_AFTER="3", BUNTIME_TICK_MS="50")
    client = server.new_client()
    session = client.open()
    _serve(session)
    with _websocket(client, session) as stream:
        for _ in range(5):  # longer than the idle timeout
            assert _echo(stream, b"ping") == b"ping"
            time.sleep(1)
        assert _state(session) == "active", "traffic must count as activity"
        _wait_for(session, "idle")  # a silent connection is not activity
        assert _echo(stream, b"still there") == b"still there"
        _wait_for(session, "active")  # the session runs again before the store says so


def test_private_previews_need_a_token_and_losing_it_ends_what_is_open(paid: Client) -> None:
    session = paid.open(preview={"visibility": "private", "ports": [8080]})
    _serve(session)
    assert _see(paid, session).status == 401
    given = paid.call("POST", f"/sessions/{session.id}/preview-token", json_body={}).done()
    token = given["token"]
    assert _see(paid, session, **{"X-Preview-Token": token}).body == b"hello"
    assert "buntime_token" not in _see(paid, session, f"/headers?buntime_token={token}&b=1").done()["path"]
    sent_on = _see(paid, session, f"/?buntime_token={token}&b=1", Accept="text/html")
    assert (sent_on.status, sent_on.headers["location"]) == (302, f"http://{_host(paid, session)}/?b=1")
    cookie = sent_on.headers["set-cookie"].partition(";")[0]
    assert _see(paid, session, Cookie=cookie).body == b"hello"
    other = paid.open(preview={"visibility": "private", "ports": [8080]})
    assert _see(paid, other, Cookie=cookie).status == 401, "a token must be valid for its session only"
    with _websocket(paid, session, f"?buntime_token={token}") as stream:
        assert _echo(stream, b"in") == b"in"
        paid.call("DELETE", f"/sessions/{session.id}/preview-token", json_body={"token": token}).done()
        _ends_soon(stream)
    time.sleep(1)  # the edge caches a permission for a second
    assert _see(paid, session, Cookie=cookie).status == 401
    for gone in (session, other):
        gone.delete().done()


def test_a_delete_ends_what_is_open_and_leads_nobody_anywhere(paid: Client) -> None:
    session = paid.open()
    _serve(session)
    with _websocket(paid, session) as stream:
        assert _echo(stream, b"in") == b"in"
        session.delete().done()
        _ends_soon(stream)
    newer = [paid.open() for _ in range(2)]
    assert _see(paid, session).status == 404
    for one in newer:
        one.delete().done()


def test_other_ports_are_for_holders_of_tokens_and_privileged_ones_for_nobody(session: Session) -> None:
    _serve(session)
    client = session.client
    session.output(
        "nohup python3 -m http.server 3000 > /dev/null 2>&1 & "
        "until curl -s localhost:3000 > /dev/null; do sleep 0.05; done"
    )
    assert _see(client, session, port=3000).status == 401
    client.call("PATCH", f"/sessions/{session.id}", json_body={"preview": {"ports": [8080, 3000]}}).done()
    assert _see(client, session, port=3000).status == 200
    assert _see(client, session, port=22).status == 404


def _wait_for(session: Session, state: str) -> None:
    deadline = time.monotonic() + 30
    while _state(session) != state:
        assert time.monotonic() < deadline, f"the session did not become {state}"
        time.sleep(0.05)


def _ends_soon(stream: socket.socket) -> None:
    """Asserts that the other side closes the connection. The guard is generous; the contract says 2 seconds."""
    ended = threading.Event()

    def body() -> None:
        try:
            while stream.recv(1024):
                pass
        except OSError:
            pass
        ended.set()

    threading.Thread(target=body, daemon=True).start()
    assert ended.wait(6)
