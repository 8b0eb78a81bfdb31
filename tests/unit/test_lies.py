"""A guest that lies causes no unexpected error, takes no uncounted memory and blocks no other task."""

import asyncio
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.types import Message

from buntime.daemon.room import Room, belongs_to
from buntime.errors import Unavailable
from buntime.inside import NewTerminal
from buntime.ports import SandboxGone
from buntime.sandboxes.guest import failures, outcomes
from buntime.sandboxes.guest.client import Guest
from buntime.sandboxes.guest.failures import Impostor
from buntime.sandboxes.guest.frames import batches, pieces
from buntime.sandboxes.guest.outcomes import stream_outcome
from buntime.sandboxes.inside import ends, evaluations, processes, searching, terminals, watching
from buntime.sandboxes.inside.contexts import GuestContexts
from buntime.sandboxes.inside.evaluations import read_evaluation
from buntime.sandboxes.inside.files import GuestFiles
from buntime.sandboxes.inside.launcher import Spare
from buntime.sandboxes.inside.prepared import Prepared, RunEnvironment
from buntime.sandboxes.inside.processes import GuestProcesses
from buntime.sandboxes.inside.terminals import WINDOW, GuestTerminals
from buntime.web.api.runs import TextOutput
from buntime.web.exchange import Exchange
from buntime.web.streaming import Out
from tests.unit.scripted_guest import answering, streamed, whole
from tests.unit.test_impostor import SECONDS, frame
from tests.unit.test_terminal_impostor import Launcher

MB = 1 << 20
DEEP = b"[" * 100_000 + b"]" * 100_000

# --- JSON that is nested too deep for Python ---

READERS: dict[str, Callable[[], object]] = {
    "a change": lambda: watching._told(b"c", b'[{"event": "created", "path": "x", "more": ' + DEEP + b"}]", "/x"),
    "what is not watched": lambda: watching._told(b"u", b'{"path": "x", "more": ' + DEEP + b"}", "/x"),
    "a page of logs": lambda: processes._decoded(b'{"why": "absent", "more": ' + DEEP + b"}", processes._Refusal),
    "the end of a terminal": lambda: terminals._exit(b'{"exitCode": 1, "more": ' + DEEP + b"}"),
    "the end of a run": lambda: outcomes._end(b'{"exitCode": 1, "more": ' + DEEP + b"}"),
    "the end of a process": lambda: ends._read((b"d", b'[{"id": 1, "more": ' + DEEP + b"}]")),
    "a run in a context": lambda: evaluations.decoded(b'{"value": {"json": ' + DEEP + b"}}", evaluations.Told),
}


@pytest.mark.parametrize("what", READERS)
def test_deeply_nested_json_raises_impostor(what: str) -> None:
    with pytest.raises(Impostor):
        READERS[what]()


def test_a_deeply_nested_failure_means_the_sandbox_is_gone() -> None:
    assert isinstance(failures.failure_of({}, b'{"errno": "ENOENT", "more": ' + DEEP + b"}", 500), SandboxGone)


def test_a_deeply_nested_match_is_skipped() -> None:
    assert searching._match_in(b'{"type": "match", "data": ' + DEEP + b"}") is None


async def test_a_deeply_nested_answer_raises_impostor() -> None:
    async with answering(whole(b'{"protocol": 1, "more": ' + DEEP + b"}")) as one:
        with pytest.raises(Impostor):
            await one.check()


# --- memory ---


async def test_input_waits_when_a_guest_falsely_reports_it_as_read() -> None:
    async with answering(streamed(again=frame(b"a", b"\xff\xff\xff\xff"))) as one:
        attaching = GuestTerminals(one, Launcher(), None)  # type: ignore[arg-type]
        async with asyncio.timeout(60), attaching.attach("term_x") as attachment:

            async def look() -> None:
                async for _ in attachment.output():
                    pass

            looking = asyncio.create_task(look())
            with suppress(TimeoutError):
                async with asyncio.timeout(2):
                    for _ in range(1000):
                        await attachment.write(bytes(MB))
            assert len(attachment._typed) <= 2 * WINDOW
            looking.cancel()


class Content:
    """Stands in for the body of an answer."""

    def __init__(self, parts: AsyncIterator[bytes]) -> None:
        self._parts = parts

    async def read(self) -> bytes:
        return await anext(self._parts, b"")


async def _repeated(part: bytes, times: int) -> AsyncIterator[bytes]:
    for _ in range(times):
        yield part


async def test_unfinished_frames_count_as_memory() -> None:
    room = Room(limit=3 * MB, share=3 * MB)
    with room.for_one_request():
        belongs_to("somebody")
        content: Any = Content(_repeated(b"c\x7f\0\0\0" + bytes(MB), 9))
        with pytest.raises(Unavailable):
            async for _ in batches(content, 1 << 31):
                pass
    assert room.used == 0


async def test_an_unfinished_end_counts_as_memory() -> None:
    room = Room(limit=3 * MB, share=3 * MB)
    with room.for_one_request():
        belongs_to("somebody")
        content: Any = Content(_repeated(b"x\x7f\0\0\0" + bytes(MB), 9))
        with pytest.raises(Unavailable):
            async for _ in pieces(content, 1 << 31, whole=b"x"):
                pass


@pytest.mark.parametrize("form", [b'"json": %b', b'"table": {"columns": [], "rows": %b}'])
@pytest.mark.parametrize("value", [b"[]", b"1.5", b'{"a":0}'])
async def test_values_are_not_decoded_into_objects(form: bytes, value: bytes) -> None:
    """A decoded `[],` takes thirty times its size in memory."""
    text = b'{"value": {' + form % (b"[" + (value + b",") * 500_000 + value + b"]") + b"}}"
    answer: Any = Content(_repeated(frame(b"v", text) + frame(b"x", b'{"outcome": "ended", "exitCode": null}'), 1))
    tracemalloc.start()
    try:
        run = await read_evaluation(answer, None, None)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert run.told is not None
    assert kept < 2 * len(text)


async def test_tiny_displayed_values_count_with_their_decoded_size() -> None:
    room = Room(limit=20 * MB, share=20 * MB)
    with room.for_one_request():
        belongs_to("somebody")
        answer: Any = Content(_repeated(frame(b"d", b"{}") * 10_000, 50))
        with pytest.raises(Unavailable):
            await read_evaluation(answer, None, None)


# --- time ---


async def _longest_turn(work: Any) -> float:
    """Returns the longest time in seconds for which the work blocked other tasks."""
    longest, task = 0.0, asyncio.ensure_future(work)
    while not task.done():
        started = time.thread_time()
        await asyncio.sleep(0)
        longest = max(longest, time.thread_time() - started)
    with suppress(searching.Enough, SandboxGone):
        await task
    return longest


@pytest.mark.parametrize(
    "line", [b"\n", b"{}\n", b'{"type": "begin", "data": {}}\n', b'{"type": "match", "data": {}}\n']
)
async def test_other_lines_of_a_search_are_skipped_in_turns_and_bounded(line: bytes) -> None:
    taken = searching._Search(names=False, limit=10)

    async def all_of_it() -> None:
        for _ in range(20):
            await taken("stdout", line * (MB // len(line)))

    started = time.thread_time()
    assert await _longest_turn(all_of_it()) < 0.5
    assert time.thread_time() - started < SECONDS
    assert taken.truncated


class Launching(Launcher):
    """A fake launcher with the parts that a start uses."""

    @property
    def env(self) -> Mapping[str, str]:
        return {}

    def live(self, lives: str) -> int:
        return 1

    async def background[T](self, lives: str, start: Callable[[Spare], Awaitable[T]], name: str = "") -> tuple[T, str]:
        return await start(Spare(1, "r1")), "r1"


LAUNCHING: Any = Launching()
MACHINERY: Any = SimpleNamespace(env={})
LISTENERS: Any = None  # no call here looks at ports
ENDS: Any = None  # … or waits for an end
TERMINAL = NewTerminal("term_x", cols=80, rows=24, env={}, working_dir="/")


async def never_full(_: float) -> bool:
    return False


# Calls whose answers do not matter
TOLD: dict[str, Callable[[Guest], Awaitable[object]]] = {
    "a file to delete": lambda one: GuestFiles(one, LAUNCHING, MACHINERY).delete("/workspace/a", recursive=False),
    "a process to prepare": lambda one: Prepared("sb", one, LAUNCHING, MACHINERY)._prepare(
        Spare(1, "r1"), RunEnvironment({}, "/")
    ),
    "that processes end": lambda one: GuestProcesses(one, LAUNCHING, MACHINERY, LISTENERS, ENDS).ending("deep_sleep"),
    "that processes have ended": lambda one: GuestProcesses(one, LAUNCHING, MACHINERY, LISTENERS, ENDS).settle(),
    "that contexts end": lambda one: GuestContexts(one, LAUNCHING, MACHINERY, never_full).ending(),
    "a terminal to start": lambda one: GuestTerminals(one, LAUNCHING, MACHINERY).create(TERMINAL),
    "that terminals end": lambda one: GuestTerminals(one, LAUNCHING, MACHINERY).ending("deep_sleep"),
    "a file to move": lambda one: GuestFiles(one, LAUNCHING, MACHINERY).move("/a", "/b", overwrite=True),
}


@pytest.mark.parametrize("what", TOLD)
async def test_an_answer_with_three_million_values_does_not_block_other_tasks(what: str) -> None:
    async with answering(whole(b'{"a":[' + b"[[]]," * 3_000_000 + b"0]}")) as one:
        assert await _longest_turn(TOLD[what](one)) < 0.3


async def test_alternating_crumbs_of_two_streams_leave_time_for_others() -> None:
    sent = 0

    async def send(message: Message) -> None:
        nonlocal sent
        sent += len(message.get("body", b""))
        until = time.thread_time() + 0.0001  # the CPU time of a send
        while time.thread_time() < until:
            pass

    async def all_of_it() -> None:
        out = Out(Exchange({"headers": []}, "POST", b"", 0.0), send)
        await out.begin_events()
        answer: Any = Content(_repeated((frame(b"o", b"x") + frame(b"e", b"y")) * 2500, 1))
        await stream_outcome(answer, TextOutput(out))

    assert await _longest_turn(all_of_it()) < 0.05
    assert sent > 5000 * len("event: stdout")
