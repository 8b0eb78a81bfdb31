"""Large answers of a guest arrive complete and do not block other tasks. An impostor's are refused."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from buntime.ports import SandboxGone
from buntime.sandboxes.guest import outcomes
from buntime.sandboxes.guest.client import LARGEST_JSON, Guest, Links
from buntime.sandboxes.guest.failures import LONGEST_PATH
from buntime.sandboxes.guest.large import AT_ONCE
from buntime.sandboxes.guest.runs import run_program
from buntime.sandboxes.inside import listing, writing
from buntime.sandboxes.inside.evaluations import LARGEST_VALUE, read_evaluation
from buntime.sandboxes.inside.files import GuestFiles
from buntime.sandboxes.inside.listing import list_directory
from buntime.sandboxes.inside.writing import write_batch
from tests.unit.scripted_guest import SECRET, Asked, answering, serving_in_a_thread, streamed, whole
from tests.unit.test_impostor import RUN, frame
from tests.unit.test_lies import Content, _longest_turn
from tests.unit.test_terminal_impostor import Launcher

LIMIT = 100
# names that look like the surrounding JSON, or that end like it
TRICKS = [
    '"',
    '",',
    '\\",',
    "\\",
    "\\\\",
    '},{"path":"',
    '","',
    '],"total":',
    '],"filesWrittenTruncated":',
    "\n",
    "é",
    "😀",
]


def compact(value: object) -> bytes:
    """Returns JSON in the form of the guest's JSON.stringify."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def listed(path: str) -> dict[str, object]:
    return {"path": path, "size": 1, "modified": 2, "type": "file"}


def long_names(number: int, length: int) -> list[str]:
    """Returns long names that end with each of the tricks."""
    return [f"{n}-{'x' * length}{TRICKS[n % len(TRICKS)]}" for n in range(number)]


async def page(one: Guest) -> list[str]:
    files, total = await list_directory(one, "/workspace", recursive=False, limit=LIMIT, offset=0)
    assert total == len(files)
    return [entry.path for entry in files]


# --- large answers of a guest ---


@pytest.mark.parametrize("number", [1, 2, LIMIT])
async def test_a_large_page_of_files_arrives_complete(number: int) -> None:
    names = long_names(number, max(AT_ONCE // number, 6000) if number > 8 else LONGEST_PATH - 40)
    entries = [listed(name) | {"raw": base64.b64encode(name.encode()).decode()} for name in names]
    body = compact({"files": entries, "total": number})
    assert number == 1 or len(body) > AT_ONCE or number == 2
    async with answering(whole(body)) as one:
        assert await page(one) == names


@pytest.mark.parametrize("number", [LIMIT, 1000])
async def test_many_written_files_of_a_run_arrive_complete(number: int) -> None:
    names = long_names(number, 2 * AT_ONCE // number)
    end = compact({"exitCode": 3, "truncated": True, "filesWritten": names, "filesWrittenTruncated": True})
    found = await outcomes._end_in(end)
    assert (found.exit_code, found.truncated, found.files_written_truncated) == (3, True, True)
    assert found.files_written == names


async def test_many_written_files_of_a_context_run_arrive_complete() -> None:
    names = long_names(1000, 2000)
    end = {"outcome": "ended", "exitCode": None, "truncated": False, "filesWritten": names}
    body = frame(b"v", b"{}") + frame(b"x", compact(end | {"filesWrittenTruncated": False}))
    async with (
        answering(streamed(body, ends=True)) as one,
        one.request("POST", "/contexts/run", {"id": "x"}) as answer,
    ):
        assert (await read_evaluation(answer, None, None)).end.files_written == names


# --- large answers of an impostor ---

ENTRY = compact(listed(""))
WRITES = b'{"exitCode":0,"truncated":false,"filesWritten":[%b],"filesWrittenTruncated":false}'
FILES = b'{"files":[%b],"total":0}'


def filled(unit: bytes, size: int = LARGEST_JSON - 1024) -> bytes:
    return b",".join([unit] * (size // (len(unit) + 1)))


LIES: dict[str, Callable[[], bytes]] = {
    "more entries than asked for": lambda: FILES % filled(ENTRY),
    "entries in another order of keys": lambda: FILES % filled(b'{"size":1,"path":"a","modified":1,"type":"file"}'),
    "no list": lambda: b'{"files":"' + b"x" * (2 * AT_ONCE) + b'"}',
    "an entry that is very large": lambda: FILES % compact(listed("x" * (2 << 20))),
    "numbers in place of entries": lambda: FILES % filled(b"0"),
    "what is no JSON": lambda: b"x" * (2 * AT_ONCE),
    "ends of texts that are none": lambda: FILES % (b'{"path":"' + b'\\},{"path":"' * 100_000 + b'"}'),
}


@pytest.mark.parametrize("what", LIES)
async def test_an_invalid_large_page_is_refused(what: str) -> None:
    async with answering(whole(LIES[what]())) as one:
        with pytest.raises(SandboxGone):
            await page(one)


@pytest.mark.parametrize("unit", [b'""', b"0", b'"\\","', b'{"a":""}'])
async def test_an_invalid_large_end_is_refused(unit: bytes) -> None:
    with pytest.raises(SandboxGone):
        await outcomes._end_in(WRITES % filled(unit))


SMALL_CALLS: dict[str, Callable[[Guest], Awaitable[object]]] = {
    "is it there": lambda one: one.check(),
    "a spare": lambda one: one.spare(),
    "how many files": lambda one: one.count_files(),
    "files to write": lambda one: write_batch(one, []),
    "a file to delete": lambda one: GuestFiles(one, Launcher(), None).delete("/workspace/a", recursive=False),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("what", SMALL_CALLS)
@pytest.mark.parametrize("status", [200, 500])
async def test_a_small_answer_is_read_only_up_to_its_limit(what: str, status: int) -> None:
    sent = 0

    async def script(asked: Asked) -> None:
        nonlocal sent
        asked.start(status)
        while sent < LARGEST_JSON:
            await asked.more(b" " * 65536)
            sent += 65536

    async with answering(script) as one:
        with pytest.raises(SandboxGone):
            await SMALL_CALLS[what](one)
    assert sent < LARGEST_JSON


# --- time ---

QUICKER = 2  # the least factor by which other tasks wait less than for decoding in one piece

WORK: dict[str, tuple[Callable[[], bytes], Any, Callable[[bytes], Awaitable[object]]]] = {
    "files": (lambda: FILES % filled(ENTRY), listing._Page, lambda text: _asked(text, page)),
    "a failure": (
        lambda: b'{"errno":"","a":[' + filled(b"[]") + b"]}",
        dict,
        lambda text: _asked(text, page, 500),
    ),
    "files written": (lambda: WRITES % filled(b'""'), outcomes.End, lambda text: outcomes._end_in(text)),
    "numbers": (
        lambda: b'{"sizes":[' + filled(b"0") + b"]}",
        writing._Sizes,
        lambda text: _asked(text, SMALL_CALLS["files to write"]),
    ),
}


async def _asked(text: bytes, call: Callable[[Guest], Awaitable[object]], status: int = 200) -> None:
    """Calls an impostor that runs in a thread, so that the event loop does only the caller's work."""
    with serving_in_a_thread(whole(text, status)) as port:
        async with Links() as links:
            await call(Guest(links, "127.0.0.1", SECRET, port))


@pytest.mark.parametrize("what", WORK)
async def test_four_answers_of_sixteen_megabytes_do_not_block_other_tasks(what: str) -> None:
    made, kind, work = WORK[what]
    text = made()
    started = time.thread_time()
    msgspec.json.decode(text, type=kind)
    in_one_piece = time.thread_time() - started
    work_of_four = asyncio.gather(*(work(text) for _ in range(4)), return_exceptions=True)
    longest = await _longest_turn(work_of_four)
    assert all(isinstance(refused, SandboxGone) for refused in work_of_four.result())
    assert longest < in_one_piece / QUICKER, (longest, in_one_piece)


async def test_a_large_end_of_a_run_is_read_completely() -> None:
    names = long_names(1000, 1000)
    end = frame(
        b"x", compact({"exitCode": 0, "truncated": False, "filesWritten": names, "filesWrittenTruncated": False})
    )
    async with answering(streamed(end, ends=True)) as one:
        assert list((await run_program(one, 1, RUN, {})).end.files_written) == names


async def in_parts(text: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(text), 65536):
        await asyncio.sleep(0)
        yield text[start : start + 65536]


@pytest.mark.parametrize("unit", [b"[]", b"0", b'{"a":0}'])
async def test_a_large_value_of_a_context_does_not_block_other_tasks(unit: bytes) -> None:
    text = b'{"value": {"json": [' + filled(unit, LARGEST_VALUE - 100) + b"]}}"
    started = time.thread_time()
    msgspec.json.decode(text)
    in_one_piece = time.thread_time() - started
    frames = frame(b"v", text) + frame(b"x", b'{"outcome": "ended", "exitCode": null}')
    answer: Any = Content(in_parts(frames))
    longest = await _longest_turn(read_evaluation(answer, None, None))
    assert longest < in_one_piece / QUICKER, (longest, in_one_piece)
