"""A client without a key floods the edge from another address, while the API and previews serve others."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.client import HTTPException

import pytest

from tests.acceptance.client import Client, Session
from tests.acceptance.conftest import Servers
from tests.network.stranger import ADDRESSES, HOST, Connections, connections, stranger

pytestmark = pytest.mark.sandbox

FLOOD = 16_500  # connections; more than an earlier edge could hold
HALF_A_HEADER = "GET / HTTP/1.1\r\nHost: a\r\n"
LOOKS, PAUSE = 40, 0.1  # seconds


@contextmanager
def _flooding(attacker: Connections) -> Iterator[None]:
    """Opens as many connections as possible, and replaces those that it loses."""
    ended = threading.Event()

    def go_on() -> None:
        while not ended.is_set():
            [held] = attacker.ask("held")
            attacker.ask(f"open {min(FLOOD - held, 550)}")

    attacker.ask(f"open {FLOOD}")
    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_an_address_that_opens_thousands_of_connections_takes_nothing_from_others(servers: Servers) -> None:
    server = servers.start(pool_size=1, BUNTIME_HOST="0.0.0.0")
    client = server.new_client()
    session = client.open(preview={"visibility": "public"})
    _serve(session)
    with (
        stranger() as there,
        connections(there.enter(), ADDRESSES[0], HOST, server.config.port, HALF_A_HEADER) as attacker,
        _flooding(attacker),
    ):
        answers = list(_looks(client, session))
        [held] = attacker.ask("held")
    assert answers == [HTTPStatus.OK] * len(answers)
    assert held <= 256
    session.delete().done()


def _serve(session: Session) -> None:
    session.write("server.ts", 'Bun.serve({ port: 8080, fetch: () => new Response("hello") });').done()
    session.output("nohup bun server.ts > /tmp/log 2>&1 & until curl -s localhost:8080; do sleep 0.05; done")


def _looks(client: Client, session: Session) -> Iterator[int]:
    """Returns statuses of API requests and preview requests, each on a new connection. 0 means no answer."""
    host = f"{session.id.replace('_', '-')}.localhost:{client.port}"
    for _ in range(LOOKS):
        time.sleep(PAUSE)
        yield _status(client, "/sessions")
        yield _status(Client(client.port, None), "/", Host=host)


def _status(client: Client, path: str, **headers: str) -> int:
    try:
        return client.call("GET", path, headers=headers, timeout=5.0).status
    except (OSError, HTTPException):
        return 0
