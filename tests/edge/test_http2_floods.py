"""A client that abuses HTTP/2 or TLS does not affect other clients."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from buntime.config import Config
from buntime.edge.nginx import CONNECTIONS_OF_ADDRESS, HEADER_SECONDS
from tests.edge.http2 import CANCEL, CONTINUATION, END_HEADERS, END_STREAM, HEADERS, PREFACE, RST_STREAM, frame, get
from tests.edge.http2 import field as header
from tests.edge.rig import FakeSession, Message, Reply, Rig, permit, read_message
from tests.edge.test_tls import DOMAIN, PREVIEW, dial, rig, secured, trusting

__all__ = ["rig", "secured"]  # fixtures

FLOOD_SECONDS, CLIENTS, LOOKS = 3.0, 4, 20
MOST_KB = 100_000  # the most additional memory of nginx's workers

Writer = asyncio.StreamWriter
Flood = Callable[[Rig, asyncio.StreamReader, Writer], Awaitable[None]]


@asynccontextmanager
async def http2(rig: Rig) -> AsyncIterator[tuple[asyncio.StreamReader, Writer]]:
    context = trusting(rig.config)
    context.set_alpn_protocols(["h2"])
    reader, writer = await dial(rig, context)
    try:
        writer.write(PREFACE)
        yield reader, writer
    finally:
        writer.transport.abort()  # a TLS shutdown would need the other side


async def begin_and_cancel(rig: Rig, reader: asyncio.StreamReader, writer: Writer) -> None:
    request = get(f"{PREVIEW}:{rig.config.port}")
    for stream in range(1, 1 << 30, 200):
        if reader.at_eof():
            return
        for number in range(stream, stream + 200, 2):
            writer.write(
                frame(HEADERS, END_STREAM | END_HEADERS, number, request) + frame(RST_STREAM, 0, number, CANCEL)
            )
        await writer.drain()
        await asyncio.sleep(0)


async def continue_for_ever(rig: Rig, reader: asyncio.StreamReader, writer: Writer) -> None:
    writer.write(frame(HEADERS, END_STREAM, 1, get(PREVIEW)))
    while not reader.at_eof():
        writer.write(frame(CONTINUATION, 0, 1, header("x-more", "y" * 1000)))
        await writer.drain()
        await asyncio.sleep(0)


async def _flood(rig: Rig, kind: Flood, ends: float) -> int:
    """Repeats the flood until `ends`. Returns the number of connections."""
    count = 0
    while time.monotonic() < ends:
        with suppress(ConnectionError, ssl.SSLError, TimeoutError):
            async with http2(rig) as (reader, writer), asyncio.timeout_at(ends):
                count += 1
                await kind(rig, reader, writer)
    return count


async def _ask(rig: Rig, host: str = PREVIEW, source: str = "127.0.0.9") -> Message:
    """Sends a request, by default from an address that no flood uses."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", rig.config.port, ssl=trusting(rig.config), server_hostname=PREVIEW, local_addr=(source, 0)
    )
    writer.write(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    try:
        answer = await asyncio.wait_for(read_message(reader), 10)
    finally:
        writer.transport.abort()
    assert answer is not None
    return answer


def _memory(config: Config) -> int:
    """Returns the memory of nginx's workers in KB."""
    master = int((config.run_dir / "edge/nginx.pid").read_text())
    workers = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    lines = (Path(f"/proc/{worker}/status").read_text() for worker in workers)
    return sum(int(text.partition("VmRSS:")[2].split()[0]) for text in lines)


@pytest.mark.parametrize("kind", [begin_and_cancel, continue_for_ever])
async def test_a_flood_of_frames_ends_only_its_own_connection(rig: Rig, kind: Flood) -> None:
    await rig.open_to(FakeSession())
    assert (await _ask(rig)).status == 200
    before, ends = _memory(rig.config), time.monotonic() + FLOOD_SECONDS
    floods = [asyncio.create_task(_flood(rig, kind, ends)) for _ in range(CLIENTS)]
    statuses = [(await _ask(rig)).status for _ in range(LOOKS)]
    connections = await asyncio.gather(*floods)
    assert statuses == [200] * LOOKS
    assert sum(connections) > CLIENTS, "the edge closed no connection"
    assert _memory(rig.config) - before < MOST_KB


async def test_http2_streams_count_as_connections_of_their_address(rig: Rig) -> None:
    async def wait(reader: asyncio.StreamReader, writer: Writer) -> None:
        await reader.read()

    slow = await rig.listen(FakeSession(serve=wait))

    async def answer(question: Message) -> Reply:
        return permit(slow)

    rig.answer = answer
    async with http2(rig) as (_, one), http2(rig) as (_, two), http2(rig) as (_, three):
        for writer in (one, two, three):  # each connection allows 128 streams
            for stream in range(1, CONNECTIONS_OF_ADDRESS, 2):
                writer.write(frame(HEADERS, END_STREAM | END_HEADERS, stream, get(f"{PREVIEW}:{rig.config.port}")))
        await asyncio.sleep(1)
        assert (await _ask(rig, f"ses-other.{DOMAIN}", "127.0.0.1")).status == 429


async def test_an_unfinished_handshake_ends_its_connection(rig: Rig) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting(rig.config).wrap_bio(incoming, outgoing, server_hostname=PREVIEW)
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    hello = outgoing.read()
    opened = [await rig.connect() for _ in range(20)]

    async def dribble(writer: Writer) -> None:
        for byte in hello[:-1]:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.5)

    dribbling = [asyncio.create_task(dribble(writer)) for _, writer in opened[:10]]
    for _, writer in opened[10:]:
        writer.write(hello)  # never finishes the handshake
    try:
        async with asyncio.timeout(2.5 * HEADER_SECONDS):
            for reader, _ in opened:
                with suppress(ConnectionError):
                    await reader.read()
    finally:
        for task in dribbling:
            task.cancel()
        for _, writer in opened:
            writer.close()
