"""One connection to a guest carries many requests, and none of them holds up another."""

import asyncio
import gc
import random
import struct
import weakref
from collections.abc import AsyncIterator
from contextlib import suppress
from contextvars import ContextVar

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from buntime.ports import SandboxGone
from buntime.sandboxes.guest import link
from buntime.sandboxes.guest.client import Guest, Links
from buntime.sandboxes.guest.failures import Impostor
from tests.ports import free_port
from tests.unit.scripted_guest import COST, HELLO, SECRET, WINDOW, Asked, answering, head, packed, raw, whole

SECONDS = 10.0
ON_THE_WAY = 25_000  # frames of one byte that the buffers of a socket take
MB = 1 << 20


async def get(guest: Guest, path: str, most: int = MB) -> bytes:
    return bytes(await guest.fetch("GET", path, {}, most))


async def test_requests_share_one_connection_and_are_answered_in_any_order() -> None:
    writers, later = set[int](), asyncio.Event()

    async def script(asked: Asked) -> None:
        writers.add(id(asked.writer))
        if asked.path == "/slow":
            await later.wait()
        asked.answer(asked.path.encode())

    async with asyncio.timeout(SECONDS), answering(script) as guest:
        slow = asyncio.create_task(get(guest, "/slow"))
        assert [await get(guest, f"/{number}") for number in range(20)] == [b"/%d" % number for number in range(20)]
        later.set()
        assert await slow == b"/slow"
    assert len(writers) == 1


class Kept:
    """What a request has in its context."""


_kept: ContextVar[Kept] = ContextVar("kept")


async def test_a_connection_keeps_nothing_of_the_request_that_made_it() -> None:
    async def request(guest: Guest) -> weakref.ref[Kept]:
        _kept.set(kept := Kept())
        await get(guest, "/")
        return weakref.ref(kept)

    async def script(asked: Asked) -> None:
        asked.answer(b"")

    async with asyncio.timeout(SECONDS), answering(script) as guest:
        left = await asyncio.create_task(request(guest))
        await asyncio.sleep(0)  # until then, the loop has the request's task
        gc.collect()
        assert left() is None
        assert guest.packets()[0] == 1  # the connection


async def test_a_connection_is_freed_when_its_sandbox_has_ended() -> None:
    async def script(asked: Asked) -> None:
        asked.answer(b"")

    async with asyncio.timeout(SECONDS), answering(script) as guest:
        await get(guest, "/")
        assert guest._link is not None
        left = weakref.ref(guest._link)
        guest.close()
        while left() is not None:  # noqa: ASYNC110 - the connection ends in the loop
            await asyncio.sleep(0)


async def test_an_answer_that_nobody_reads_holds_up_no_other_and_stops_at_the_window() -> None:
    sent = 0

    async def script(asked: Asked) -> None:
        nonlocal sent
        if asked.path != "/endless":
            asked.answer(b"here")
            return
        asked.start()
        while True:
            await asked.more(bytes(10_000))
            sent += 10_000

    async with (
        asyncio.timeout(SECONDS),
        answering(script) as guest,
        guest.request("GET", "/endless", {}) as answer,
    ):
        for _ in range(50):
            assert await get(guest, "/other") == b"here"
        assert sent <= WINDOW
        taken = 0
        while taken < 3 * WINDOW:
            taken += len(await answer.read())
        assert sent <= taken + WINDOW


@pytest.mark.parametrize("size", [0, 1, 60_000, 65_532, 65_533, 200_000, WINDOW, 3 * MB])
async def test_bodies_of_any_size_arrive_whole_in_both_directions(size: int) -> None:
    content = random.Random(size).randbytes(size)

    async def script(asked: Asked) -> None:
        await asked.over.wait()
        await whole(bytes(asked.body))(asked)

    async def parts() -> AsyncIterator[bytes]:
        for at in range(0, size, 77_777):
            yield content[at : at + 77_777]

    async with asyncio.timeout(SECONDS), answering(script) as guest:
        assert await guest.fetch("POST", "/echo", {}, size, content) == content
        assert await guest.fetch("POST", "/echo", {}, size, parts()) == content


async def test_a_body_waits_until_the_guest_takes_it() -> None:
    given_away = 0

    async def parts() -> AsyncIterator[bytes]:
        nonlocal given_away
        while True:
            given_away += 50_000
            yield bytes(50_000)

    async def stopped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the hello, and then takes what comes without granting more."""
        writer.write(packed(b"h", 0, HELLO))
        while await reader.read(65_536):
            pass
        writer.close()

    server = await asyncio.start_server(stopped, "127.0.0.1", 0)
    async with asyncio.timeout(SECONDS), server, Links() as links:
        guest = Guest(links, "127.0.0.1", SECRET, server.sockets[0].getsockname()[1])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await guest.fetch("POST", "/", {}, 1, parts())
    assert WINDOW / 2 < given_away < 2 * WINDOW


async def test_the_failure_of_a_bodys_source_is_raised() -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"some"
        raise KeyError("the client has left")

    async def script(asked: Asked) -> None:
        await asked.over.wait()

    async with asyncio.timeout(SECONDS), answering(script) as guest:
        with pytest.raises(KeyError):
            await guest.fetch("POST", "/", {}, 1, parts())
        assert guest._link is not None
        assert guest._link.is_open


async def test_leaving_an_answer_tells_the_guest_and_keeps_the_connection() -> None:
    cancelled = asyncio.Event()

    async def script(asked: Asked) -> None:
        if asked.path == "/other":
            asked.answer(b"here")
            return
        asked.start()
        try:
            while True:
                await asked.more(b"x" * 5000)
        finally:
            cancelled.set()

    async with asyncio.timeout(SECONDS), answering(script) as guest:
        for _ in range(3):
            cancelled.clear()
            async with guest.request("GET", "/endless", {}) as answer:
                assert await answer.read()
            await cancelled.wait()
            assert await get(guest, "/other") == b"here"


async def test_an_answer_that_crosses_its_cancellation_harms_nothing() -> None:
    async def script(asked: Asked) -> None:
        if asked.path == "/late":
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            asked.answer(b"late")
        else:
            asked.answer(b"here")

    async with asyncio.timeout(SECONDS), answering(script) as guest:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await get(guest, "/late")
        for _ in range(5):
            assert await get(guest, "/other") == b"here"
            await asyncio.sleep(0.01)


async def test_a_lost_connection_ends_every_request_and_the_next_one_connects_again() -> None:
    connections = set[int]()

    async def script(asked: Asked) -> None:
        connections.add(id(asked.writer))
        if asked.path == "/die":
            asked.writer.transport.abort()
        elif asked.path == "/here":
            asked.answer(b"here")
        else:
            asked.start()
            await asked.more(b"some")

    async with asyncio.timeout(SECONDS), answering(script) as guest:
        async with guest.request("GET", "/endless", {}) as answer:
            assert await answer.read() == b"some"
            with pytest.raises(SandboxGone):
                await get(guest, "/die")
            with pytest.raises(SandboxGone):
                await answer.read()
        assert await get(guest, "/here") == b"here"
    assert len(connections) == 2


async def test_an_answer_that_breaks_off_raises_sandbox_gone() -> None:
    async with asyncio.timeout(SECONDS), answering(raw(lambda n: packed(b"s", n, head()) + packed(b"r", n))) as guest:
        with pytest.raises(SandboxGone) as raised:
            await get(guest, "/")
        assert not isinstance(raised.value, Impostor)


def test_nobody_listening_means_the_sandbox_is_gone() -> None:
    async def ask() -> None:
        async with asyncio.timeout(SECONDS), Links() as links:
            with pytest.raises(SandboxGone):
                await get(Guest(links, "127.0.0.1", SECRET, free_port()), "/")

    # the server's event loop makes the protocol before it connects
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ask())


async def test_a_guest_that_sends_crumbs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "MOST_BUSY", 5)
    crumbs = 0

    async def crumble(asked: Asked) -> None:
        nonlocal crumbs
        asked.start()
        while True:
            await asked.more(b"x")
            crumbs += 1

    async with answering(crumble) as guest:
        with pytest.raises(SandboxGone, match="crumbs"):
            await guest.fetch("GET", "/files", {}, 1 << 30)
    assert crumbs < (link.MOST_BUSY + 3) * link.MOST_WORK + ON_THE_WAY


async def test_a_guest_that_sends_crumbs_now_and_then_is_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "MOST_BUSY", 2)

    async def crumble(asked: Asked) -> None:
        asked.start()
        for _ in range(6):
            for _ in range(link.MOST_WORK):
                await asked.more(b"x")
            await asyncio.sleep(2 * link.WORK_SECONDS)
        asked.send(b"e")

    async with answering(crumble) as guest:
        assert len(await guest.fetch("GET", "/files", {}, 1 << 30)) == 6 * link.MOST_WORK


async def test_a_guest_that_ends_nothing_is_given_up() -> None:
    async with asyncio.timeout(SECONDS), answering(raw(lambda _: b"")) as guest:
        assert await asks_and_leaves(guest) < 3000


async def asks_and_leaves(guest: Guest) -> int:
    """Returns how often that was possible on one connection."""
    for number in range(3000):
        asking = asyncio.create_task(get(guest, "/"))
        await asyncio.sleep(0 if number else 0.2)
        asking.cancel()
        with suppress(asyncio.CancelledError, SandboxGone):
            await asking
        if guest._link is not None and not guest._link.is_open:
            return number
    return 3000


frames = st.tuples(
    st.sampled_from([b"h", b"d", b"e", b"a", b"s", b"r", b"w", b"q", b"?", b"\0"]),
    st.sampled_from([0, 1, 1, 1, 2, 3, 2**32 - 1]),
    st.one_of(
        st.binary(max_size=40),
        st.just(head()),
        st.just(head(500, {"a": "b"}) + b"body"),
        st.just(HELLO),
        st.just(struct.pack(">I", COST)),
    ),
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(frames, max_size=12), st.binary(max_size=12), st.lists(st.integers(1, 30), max_size=5))
async def test_whatever_a_guest_sends_only_typed_errors_come_of_it(
    said: list[tuple[bytes, int, bytes]], rest: bytes, cuts: list[int]
) -> None:
    text = b"".join(packed(*frame) for frame in said) + rest

    async def script(asked: Asked) -> None:
        left = text
        for cut in cuts:
            asked.writer.write(left[:cut])
            await asyncio.sleep(0)
            left = left[cut:]
        asked.writer.write(left)
        await asked.writer.drain()
        asked.writer.close()

    async with asyncio.timeout(SECONDS), answering(script) as guest:
        with suppress(SandboxGone):
            async with guest.request("GET", "/", {}) as answer:
                while await answer.read():
                    pass


async def test_a_connection_without_use_is_closed_and_the_next_request_makes_another() -> None:
    writers = list[asyncio.StreamWriter]()

    async def script(asked: Asked) -> None:
        writers.append(asked.writer)
        asked.answer(b"here")

    loop = asyncio.get_running_loop()
    async with asyncio.timeout(SECONDS), answering(script) as guest:
        assert await get(guest, "/") == b"here"
        first, _ = guest.packets()
        guest.hang_up(unused_since=loop.time() - 1)
        assert guest.packets()[0] == first
        guest.hang_up(unused_since=loop.time())
        assert guest.packets() == (first + 1, 0)
        await writers[0].wait_closed()
        assert await get(guest, "/") == b"here"
        assert writers[1] is not writers[0]
        assert guest.packets()[0] == first + 2


async def test_a_connection_with_a_request_under_way_stays() -> None:
    begun, later = asyncio.Event(), asyncio.Event()

    async def script(asked: Asked) -> None:
        asked.start()
        begun.set()
        await later.wait()
        await asked.more(b"here")
        asked.send(b"e")

    async with asyncio.timeout(SECONDS), answering(script) as guest:
        slow = asyncio.create_task(get(guest, "/"))
        await begun.wait()
        guest.hang_up(unused_since=asyncio.get_running_loop().time() + 1)
        later.set()
        assert await slow == b"here"
        async with guest.request("GET", "/", {}):
            pass
        guest.hang_up(unused_since=asyncio.get_running_loop().time() + 1)  # the guest may still send
        assert await get(guest, "/") == b"here"


async def test_a_connection_that_the_guest_does_not_read_is_closed_all_the_same() -> None:
    """An impostor may answer without reading, again and again. What it did not read must not pile up."""
    answers = asyncio.Queue[int]()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(packed(b"h", 0, HELLO))
        await reader.readexactly(9 + len(SECRET))
        while number := await answers.get():
            writer.write(packed(b"a", number, head()))
        writer.close()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(60_000)

    links, loop = Links(), asyncio.get_running_loop()
    server = await asyncio.start_server(deaf, "127.0.0.1", 0, limit=1)
    async with asyncio.timeout(3 * SECONDS), server, links:
        guest = Guest(links, "127.0.0.1", SECRET, server.sockets[0].getsockname()[1])
        for number in range(1, 1000):
            asking = asyncio.create_task(guest.fetch("POST", "/", {}, MB, endless()))
            await asyncio.sleep(0.01)
            answers.put_nowait(number)
            await asking
            assert guest._link is not None
            if not guest._link.is_flowing:
                break
        else:
            raise AssertionError("it was all sent")
        guest.hang_up(unused_since=loop.time() + 1)
        await asyncio.sleep(0.1)
        assert not links._open
        answers.put_nowait(0)
