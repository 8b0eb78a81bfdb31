"""A client attacks the server with streams, uploads, upgrades and odd requests. Nobody else is affected."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from tests.acceptance.client import Session
from tests.acceptance.events import Events, stream, watch
from tests.acceptance.hostile import all_of, follow, others_stay_quick, process_of, recovers
from tests.acceptance.server import Server
from tests.acceptance.test_terminals import terminal_user

pytestmark = pytest.mark.sandbox


def test_half_open_uploads_cost_little_and_no_more_than_the_plan_allows(
    server: Server, victim: Session, neighbour: Session
) -> None:
    head = (
        f"PUT /files/content?sessionId={victim.id}&path=up HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n"
        f"Authorization: Bearer {victim.client.key}\r\n\r\n0123456789"
    ).encode()
    with others_stay_quick(server, neighbour), ExitStack() as stack:
        for number in range(400):
            source = (f"127.0.0.{2 + number % 2}", 0)  # the edge accepts at most 256 connections of one address
            where = ("127.0.0.1", victim.client.port)
            raw = stack.enter_context(socket.create_connection(where, source_address=source))
            raw.sendall(head)
        time.sleep(3)
        assert victim.output("echo fine") == "fine\n"
    assert victim.list().done()["total"] == 0


def test_storms_of_clients_that_leave(server: Server, victim: Session, neighbour: Session) -> None:
    process = process_of(victim, "while :; do echo more; sleep 0.05; done")
    asks: list[Callable[[], Events]] = [
        lambda: watch(victim),
        lambda: follow(victim, process),
        lambda: stream(victim, command="echo x; sleep 9"),
    ]
    with others_stay_quick(server, neighbour):
        for n in range(150):
            with asks[n % 3]() as answer:
                if n % 2:
                    assert answer.status in (200, 429)
    deadline = time.monotonic() + 60
    while not _watches(victim):
        assert time.monotonic() < deadline
    recovers(victim)


def _watches(session: Session) -> bool:
    with watch(session) as answer:
        return answer.status == 200


@pytest.mark.parametrize(
    "path", ["/files/watch?", "/files/content?path=f&", "/files/archive?", "/processes/logs?follow=true&"]
)
def test_a_head_of_what_streams_ends_at_once(victim: Session, path: str) -> None:
    victim.write("f", "x").done()
    process = process_of(victim, "sleep 600")
    reply = victim.client.call(
        "HEAD", f"{path}sessionId={victim.id}" + (f"&processId={process}" if "logs" in path else ""), timeout=30
    )
    assert (reply.status, reply.body) == (200, b"")


UPGRADE = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"


@pytest.mark.parametrize("path", ["/", "/execute", "/files/watch?sessionId={id}", "/healthz", "/sessions/{id}", "/x/y"])
def test_no_other_path_becomes_a_websocket(victim: Session, path: str) -> None:
    with _asked(victim, "GET " + path.format(id=victim.id), UPGRADE.format(key="AAAAAAAAAAAAAAAAAAAAAA==")) as raw:
        status = int(raw.recv(100).split()[1])
    assert status != 101
    assert status < 500


def test_terminals_of_clients_that_left_before_they_knew_of_them_are_none(victim: Session) -> None:
    for _ in range(10):
        with _asked(victim, f"GET /sessions/{victim.id}/terminal", UPGRADE.format(key="AAAAAAAAAAAAAAAAAAAAAA==")):
            pass
    deadline = time.monotonic() + 60
    while victim.command("pgrep -f 'bash -[i]'")["stdout"]:
        assert time.monotonic() < deadline


def test_nobody_elses_terminal_is_opened(victim: Session, neighbour: Session) -> None:
    stranger = Session(neighbour.client, victim.id)
    path = f"GET /sessions/{stranger.id}/terminal"
    with _asked(stranger, path, UPGRADE.format(key="AAAAAAAAAAAAAAAAAAAAAA==")) as raw:
        assert b"session_not_found" in all_of(raw)
    with terminal_user(victim) as mine:
        path = f"GET /sessions/{neighbour.id}/terminal?terminalId={mine.terminal}"
        with _asked(neighbour, path, UPGRADE.format(key="AAAAAAAAAAAAAAAAAAAAAA==")) as raw:
            assert b"terminal_not_found" in all_of(raw)


@contextmanager
def _asked(session: Session, line: str, headers: str, body: bytes = b"") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", session.client.port)) as raw:
        raw.settimeout(60)
        head = f"{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {session.client.key}\r\n{headers}\r\n"
        raw.sendall(head.encode() + body)
        yield raw


SMUGGLED = b"GET /sessions HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: x\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 5, 5\r\n",
    ],
)
def test_requests_whose_end_is_two_things_are_refused(victim: Session, headers: str) -> None:
    body = b"0\r\n\r\n" + SMUGGLED
    line = f"PUT /files/content?sessionId={victim.id}&path=up"
    with _asked(victim, line, headers, body) as raw:
        raw.shutdown(socket.SHUT_WR)
        text = b""
        with suppress(OSError):
            while part := raw.recv(65536):
                text += part
    assert text.count(b"HTTP/1.1 ") <= 1 or text.count(b"HTTP/1.1 401") == 0, text
    assert text.split()[1] in (b"400", b"501", b"200"), text


@pytest.mark.parametrize("id_", ["1\n\nevent: x", "-1", "1e3", "9" * 30, "٣"])
def test_an_id_of_an_event_that_is_none_is_refused(victim: Session, id_: str) -> None:
    process = process_of(victim, "sleep 600")
    query: dict[str, object] = {"sessionId": victim.id, "processId": process, "follow": "true"}
    try:
        reply = victim.client.call("GET", "/processes/logs", query=query, headers={"Last-Event-ID": id_})
    except (ValueError, UnicodeError):
        return
    reply.refused(400, "invalid_request")


def test_names_with_line_breaks_break_no_line_of_an_answer(victim: Session) -> None:
    name = "a\r\nX-Evil: 1\r\n\r\nevent: evil\ndata: {}\n\n\u2028b"
    with watch(victim) as answer:
        assert answer.status == 200
        told = iter(answer)
        assert next(told)[0] == "ready"
        victim.write(name, "x").done()
        event, content = next(told)
        assert (event, content["path"].endswith(name)) == ("change", True)
    for path in ("/files/content", "/files/archive"):
        reply = victim.client.call("GET", path, query={"sessionId": victim.id, "path": name})
        assert reply.status == 200
        assert "x-evil" not in reply.headers
