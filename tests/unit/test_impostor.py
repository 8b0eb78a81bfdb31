"""A program in the session may answer in the guest's place. It must cost the server neither time nor memory."""

import asyncio
import json
import struct
import time
from collections.abc import Callable

import pytest

from buntime.ports import Run, SandboxGone
from buntime.sandboxes.guest.client import Guest
from buntime.sandboxes.guest.failures import Impostor
from buntime.sandboxes.guest.runs import run_program
from buntime.sandboxes.inside.listing import list_directory
from buntime.sandboxes.inside.writing import write_batch
from tests.unit.scripted_guest import HELLO, Script, answering, head, packed, raw, streamed, whole

RUN = Run(timeout=30, command="true")
SECONDS = 5.0  # an impostor that is not recognised never stops


def frame(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">cI", kind, len(payload)) + payload


STARTED = head()
# what no guest sends, once and then again and again
VIOLATIONS: dict[str, Script] = {
    "bytes that are no frames": raw(lambda _: b"HTTP/1.1 200 OK\r\n\r\n"),
    "a kind that does not exist": raw(lambda n: packed(b"?", n)),
    "a kind that only the server sends": raw(lambda n: packed(b"q", n, b"\0\0")),
    "a second hello": raw(lambda _: packed(b"h", 0, HELLO)),
    "a payload that is too long": raw(lambda n: struct.pack(">cII", b"a", n, 65_537)),
    "an answer to nothing": raw(lambda n: packed(b"a", n + 1, STARTED)),
    "an answer on the connection's own stream": raw(lambda _: packed(b"a", 0, STARTED)),
    "a second answer": raw(lambda n: packed(b"s", n, STARTED) + packed(b"a", n, STARTED)),
    "a body without an answer": raw(lambda n: packed(b"d", n, b"x")),
    "an end without an answer": raw(lambda n: packed(b"e", n)),
    "an end with a payload": raw(lambda n: packed(b"s", n, STARTED) + packed(b"e", n, b"x")),
    "an answer without a head": raw(lambda n: packed(b"a", n, b"\0")),
    "a head that is longer than its frame": raw(lambda n: packed(b"a", n, struct.pack(">HH", 200, 9) + b"{}")),
    "fields that are no JSON": raw(lambda n: packed(b"a", n, struct.pack(">HH", 200, 2) + b"no")),
    "fields that are no strings": raw(lambda n: packed(b"a", n, struct.pack(">HH", 200, 8) + b'{"a": 1}')),
    "credit for what was never sent": raw(lambda n: packed(b"w", n, b"\0\0\0\1")),
    "credit of nothing": raw(lambda n: packed(b"w", n, bytes(4)), lambda n: packed(b"w", n, bytes(4)) * 1000),
    "credit of another size": raw(lambda n: packed(b"w", n, b"\1")),
    "a body without end": raw(lambda n: packed(b"s", n, STARTED), lambda n: packed(b"d", n, bytes(65_536))),
    "crumbs without end": raw(lambda n: packed(b"s", n, STARTED), lambda n: packed(b"d", n, b"x") * 1000),
    "nothing without end": raw(lambda n: packed(b"s", n, STARTED), lambda n: packed(b"d", n) * 1000),
}


@pytest.mark.parametrize("what", VIOLATIONS)
async def test_what_no_guest_sends_raises_impostor_at_once(what: str) -> None:
    async with asyncio.timeout(SECONDS), answering(VIOLATIONS[what]) as guest:
        started = time.process_time()
        with pytest.raises(Impostor):
            await read_late(guest)
        assert time.process_time() - started < 1.5


async def read_late(guest: Guest) -> None:
    async with guest.request("GET", "/files/read", {}) as answer:
        await asyncio.sleep(0.5)
        while await answer.read():
            pass


@pytest.mark.parametrize("hello", [b"", b"{}", b'{"protocol": "2"}', b"[" * 100, b"x" * 101])
async def test_a_hello_that_is_none_raises_impostor(hello: bytes) -> None:
    async with asyncio.timeout(SECONDS), answering(whole(b"{}"), packed(b"h", 0, hello)) as guest:
        with pytest.raises(Impostor):
            await guest.check()


async def test_a_guest_of_another_protocol_is_gone() -> None:
    async with asyncio.timeout(SECONDS), answering(whole(b"{}"), packed(b"h", 0, b'{"protocol": 3}')) as guest:
        with pytest.raises(SandboxGone) as raised:
            await guest.check()
        assert not isinstance(raised.value, Impostor)


async def test_an_answer_before_the_hello_raises_impostor() -> None:
    async with asyncio.timeout(SECONDS), answering(whole(b"{}"), packed(b"a", 1, STARTED)) as guest:
        with pytest.raises(Impostor):
            await guest.check()


async def test_a_flood_of_empty_frames_is_ended_at_once() -> None:
    async with asyncio.timeout(SECONDS), answering(streamed(again=frame(b"o", b"") * 10_000)) as guest:
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
        async with answering(whole(body.encode())) as guest:
            with pytest.raises(SandboxGone):
                await call(guest)  # type: ignore[misc]


async def test_a_files_impossible_size_is_shown_as_the_nearest_possible_one() -> None:
    entries = [{"path": "a", "size": size, "modified": 0, "type": "file"} for size in (-5, 10**30)]
    body = json.dumps({"files": entries, "total": 2}).encode()
    async with answering(whole(body)) as guest:
        found, _ = await list_directory(guest, "/", recursive=False, limit=2, offset=0)
    assert [entry.size for entry in found] == [0, 2**53 - 1]


async def test_printing_byte_by_byte_does_not_raise_impostor() -> None:
    end = frame(b"x", b'{"exitCode": 0}')
    async with asyncio.timeout(SECONDS), answering(streamed(*[frame(b"o", b"a")] * 20_000, end, ends=True)) as guest:
        outcome = await run_program(guest, 1, RUN, {})
    assert outcome.stdout == b"a" * 20_000


async def test_a_large_file_does_not_raise_impostor() -> None:
    content = bytes(8 << 20)
    async with answering(whole(content)) as guest:
        assert await guest.fetch("GET", "/files/read", {}, len(content)) == content
