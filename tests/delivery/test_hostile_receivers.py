"""Receivers that break the connection in every way: each attempt ends, and is told as a failure."""

import asyncio
import gc
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import h11
import pytest
from aiohttp import web
from httpcore2 import (
    SOCKET_OPTION,
    AnyIOBackend,
    AsyncConnectionPool,
    AsyncNetworkStream,
    ConnectError,
    Request,
    Response,
)

from buntime.delivery import connecting, posting
from buntime.delivery.connecting import CheckedBackend
from buntime.delivery.posting import Poster
from buntime.event import EventType, new_event
from buntime.lifecycle.sealing import Vault
from buntime.operations.signing import Signing
from buntime.webhook import DeliveryState, Webhook
from tests.delivery.conftest import LOCAL, Sending, sending
from tests.delivery.receiver import Got, receiving
from tests.delivery.test_addresses import Names, certificate
from tests.waiting import eventually


class Breaking(AsyncConnectionPool):
    """Connections that break with an error that no library of HTTP promises."""

    def __init__(self, failure: Exception) -> None:
        super().__init__()
        self._failure = failure

    async def handle_async_request(self, request: Request) -> Response:
        raise self._failure


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        (ssl.SSLError(1, "certificate required"), "The connection failed: "),
        (ConnectionResetError(104, "reset"), "The connection failed: "),
        (ValueError("too many digits"), "The attempt failed: ValueError"),
        (TypeError("no address"), "The attempt failed: TypeError"),
    ],
)
async def test_an_attempt_raises_nothing_however_it_breaks(broken: Exception, told: str) -> None:
    signing = Signing(Vault(bytes(32)))
    webhook = Webhook("whk_one", "acc_one", "https://hooks.test/", (signing.new("whk_one")[1],), 0)
    event = new_event("acc_one", EventType.WEBHOOK_TEST, 0, {})
    outcome = await Poster(Breaking(broken), signing, lambda: 0.0)(webhook, event)
    assert not outcome.worked
    assert (outcome.failure or "").startswith(told)


class Vanished(AsyncNetworkStream):
    """A connection whose other end is gone: the kernel does not know its address any more."""

    def __init__(self) -> None:
        self.closed = False

    async def aclose(self) -> None:
        self.closed = True

    def get_extra_info(self, info: str) -> Any:
        return ("127.0.0.1", 1) if info == "client_addr" else None


async def test_a_connection_that_is_reset_at_once_is_closed_and_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    vanished = Vanished()

    class Sockets(AnyIOBackend):
        async def connect_tcp(
            self,
            host: str,
            port: int,
            timeout: float | None = None,
            local_address: str | None = None,
            socket_options: Iterable[SOCKET_OPTION] | None = None,
        ) -> AsyncNetworkStream:
            return vanished

    monkeypatch.setattr(connecting, "AnyIOBackend", Sockets)
    backend = CheckedBackend(Names(["127.0.0.1"]).resolve, (ip_network("127.0.0.0/8"),))
    with pytest.raises(ConnectError):
        await backend.connect_tcp("hooks.test", 80)
    assert vanished.closed


async def test_a_receiver_that_is_silent_in_tls_gets_its_connection_closed(
    sender: Sending, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posting, "ATTEMPT_SECONDS", 0.3)
    ended: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.append(await reader.read())
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    gc.disable()  # it would close a connection that was only forgotten
    try:
        webhook = await sender.webhook(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        await sender.happens()
        assert "no whole answer" in ((await sender.delivery(webhook)).failure or "")
        await eventually(lambda: ended, seconds=10)
    finally:
        gc.enable()
        server.close()
        server.abort_clients()


@pytest.mark.parametrize("steps", range(1, 9))
async def test_an_attempt_that_is_cancelled_loses_no_connection(steps: int) -> None:
    """The receiver has closed its connections. The next attempt finds that, and closes our ends of them."""

    async def resolve(name: str, _: int) -> list[str]:
        return [name]

    signing = Signing(Vault(bytes(32)))
    event = new_event("acc_one", EventType.WEBHOOK_TEST, 0, {})
    async with posting.posting(signing, LOCAL, lambda: 0.0, resolve=resolve) as post:
        async with receiving() as receiver:
            webhook = Webhook("whk_one", "acc_one", receiver.url(), (signing.new("whk_one")[1],), 0)
            outcomes = await asyncio.gather(*(post(webhook, event) for _ in range(4)))
            assert all(outcome.worked for outcome in outcomes)
        attempt = asyncio.create_task(post(webhook, event))
        for _ in range(steps):
            await asyncio.sleep(0)
        attempt.cancel()
        await asyncio.wait({attempt})
    gc.collect()  # a connection that was lost is a warning here, which is an error


@asynccontextmanager
async def flooding(first: bytes, again: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A receiver that answers `first`, and then `again` for as long as it is read. Yields its host and port."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"}}")
            writer.write(first)
            while again:
                writer.write(again)
                await writer.drain()
            await reader.read()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        server.abort_clients()


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Grows with each event of HTTP that is parsed out of answers, and with each look for one."""
    events: list[object] = []
    parse = h11.Connection.next_event

    def counted(connection: h11.Connection) -> object:
        if connection.our_role is h11.CLIENT:
            events.append(None)
        return parse(connection)

    monkeypatch.setattr(h11.Connection, "next_event", counted)
    return events


INTERIM = b"HTTP/1.1 100\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("first", "again", "works"),
    [
        (b"", INTERIM * 1000, False),
        (b"HTTP/1.1 200 OK\r\n", b"a: b\r\n" * 1000, False),
        (b"", b"x" * 10_000, False),
        (CHUNKED, b"1\r\nx\r\n" * 1000, True),
        (CHUNKED, b"1;" + b"x" * 10_000, True),
        (CHUNKED + b"0\r\n", b"a: b\r\n" * 1000, True),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 10_000, True),
    ],
)
async def test_an_answer_without_end_costs_little_parsing(
    sender: Sending, parsed: list[object], first: bytes, again: bytes, works: bool
) -> None:
    async with flooding(first, again) as at:
        webhook = await sender.webhook(f"http://{at}/")
        await sender.happens()
        one = await sender.delivery(webhook)
        assert (one.state is DeliveryState.DELIVERED) is works
        assert works or "too long" in (one.failure or "")
        assert len(parsed) < 1100


async def test_an_answer_over_tls_is_bounded_too(tmp_path: Path, parsed: list[object]) -> None:
    server, client = certificate(tmp_path, "hooks.test")
    names = Names(["127.0.0.1"])
    async with (
        flooding(b"", INTERIM * 1000, server) as at,
        sending(tmp_path, trusted=client, resolve=names.resolve) as sender,
    ):
        webhook = await sender.webhook(f"https://hooks.test:{at.split(':')[1]}/")
        await sender.happens()
        assert "too long" in ((await sender.delivery(webhook)).failure or "")
        assert len(parsed) < 1100


async def test_an_answer_that_comes_a_byte_at_a_time_is_not_read_to_its_end(
    sender: Sending, parsed: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each read brings one byte, as it can from a receiver that sends many small packets."""
    monkeypatch.setattr(connecting, "READ_BYTES", 1)
    async with flooding(b"HTTP/1.1 200 OK\r\n", b"a: b\r\n") as at:
        webhook = await sender.webhook(f"http://{at}/")
        await sender.happens()
        assert "too long" in ((await sender.delivery(webhook)).failure or "")
        assert len(parsed) < 200


async def test_a_small_answer_leaves_its_connection_for_the_next_event(sender: Sending) -> None:
    ports: set[object] = set()

    async def answer(got: Got) -> web.StreamResponse:
        assert got.request.transport is not None
        ports.add(got.request.transport.get_extra_info("peername"))
        chunked = web.StreamResponse()
        chunked.enable_chunked_encoding()
        await chunked.prepare(got.request)
        await chunked.write(b"ok")
        return chunked

    async with receiving(answer) as receiver:
        await sender.webhook(receiver.url())
        for number in range(150):  # more requests than reads that one answer has
            await sender.happens(number=number)
        await eventually(lambda: len(receiver.got) == 150)
        assert len(ports) == 1
