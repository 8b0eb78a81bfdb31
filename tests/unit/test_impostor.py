"""A program in the session may answer in the guest's place. It must cost the server neither time nor memory."""

import asyncio
import json
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from buntime.ports import Run, SandboxGone
from buntime.sandboxes.guest.client import Guest, new_http_client
from buntime.sandboxes.guest.failures import Impostor
from buntime.sandboxes.guest.runs import run_program
from buntime.sandboxes.inside.listing import list_directory
from buntime.sandboxes.inside.writing import write_batch

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
RUN = Run(timeout=30, command="true")
SECONDS = 5.0  # an impostor that is not recognised never stops


@asynccontextmanager
async def answering(first: bytes, then: bytes = b"") -> AsyncIterator[Guest]:
    """Yields a client of a server that answers every request with `first`, and then repeats `then` without end."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(first)
            while then:
                writer.write(then)
                await writer.drain()
            await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, new_http_client() as http:
        yield Guest(http, "127.0.0.1", "secret", server.sockets[0].getsockname()[1])


def json_answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def frame(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">cI", kind, len(payload)) + payload


FLOODS = {
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "a chunk with an endless extension": (CHUNKED + b"1;", b"a" * 65536),
    "chunks of one byte": (CHUNKED, b"1\r\na\r\n" * 10000),
    "one endless header line": (b"HTTP/1.1 200 OK\r\nX: ", b"a" * 65536),
    "headers without end": (b"HTTP/1.1 200 OK\r\n", b"X-Y: aaaaaaaa\r\n" * 1000),
}


@pytest.mark.parametrize("what", FLOODS)
async def test_an_answer_without_content_is_ended_at_once(what: str) -> None:
    async with asyncio.timeout(SECONDS), answering(*FLOODS[what]) as guest:
        started = time.process_time()
        with pytest.raises(SandboxGone):
            await list_directory(guest, "/workspace", recursive=False, limit=10, offset=0)
        assert time.process_time() - started < 1.0


@pytest.mark.parametrize("what", ["interim answers", "a chunk with an endless extension", "chunks of one byte"])
async def test_answers_that_no_guest_sends_raise_impostor(what: str) -> None:
    async with asyncio.timeout(SECONDS), answering(*FLOODS[what]) as guest:
        with pytest.raises(Impostor):
            await guest.check()


async def test_a_flood_of_empty_frames_is_ended_at_once() -> None:
    frames = frame(b"o", b"") * 10000
    chunk = b"%x\r\n%b\r\n" % (len(frames), frames)
    async with asyncio.timeout(SECONDS), answering(CHUNKED, chunk) as guest:
        with pytest.raises(Impostor):
            await run_program(guest, 1, RUN, {})


@pytest.mark.parametrize("number", ["-1", "1e400", "99999999999999999999999999", '"1"', "1.5", "NaN"])
async def test_a_number_that_the_store_cannot_hold_is_refused(number: str) -> None:
    page = f'{{"files": [], "total": {number}}}'
    calls: list[tuple[str, Callable[[Guest], object]]] = [
        (f'{{"files": {number}}}', lambda guest: guest.count_files()),
        (page, lambda guest: list_directory(guest, "/", recursive=False, limit=1, offset=0)),
        (f'{{"sizes": [{number}]}}', lambda guest: write_batch(guest, [])),
    ]
    for body, call in calls:
        async with answering(json_answer(body.encode())) as guest:
            with pytest.raises(SandboxGone):
                await call(guest)  # type: ignore[misc]


async def test_a_files_impossible_size_is_shown_as_the_nearest_possible_one() -> None:
    entries = [{"path": "a", "size": size, "modified": 0, "type": "file"} for size in (-5, 10**30)]
    body = json.dumps({"files": entries, "total": 2}).encode()
    async with answering(json_answer(body)) as guest:
        found, _ = await list_directory(guest, "/", recursive=False, limit=2, offset=0)
    assert [entry.size for entry in found] == [0, 2**53 - 1]


async def test_printing_byte_by_byte_does_not_raise_impostor() -> None:
    end = frame(b"x", b'{"exitCode": 0}')
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in [frame(b"o", b"a")] * 20000 + [end])
    async with asyncio.timeout(SECONDS), answering(CHUNKED + chunks + b"0\r\n\r\n") as guest:
        outcome = await run_program(guest, 1, RUN, {})
    assert outcome.stdout == b"a" * 20000


async def test_a_large_file_does_not_raise_impostor() -> None:
    content = bytes(8 << 20)
    chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content)
    for answer in (CHUNKED + chunk, json_answer(content)):
        async with answering(answer) as guest:
            assert await guest.fetch("GET", "/files/read", {}, len(content)) == content
