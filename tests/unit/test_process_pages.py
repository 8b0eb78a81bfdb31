"""Reports of a guest about processes and their logs are checked, because the guest may be an impostor."""

import json
from collections.abc import Sequence

import pytest

from buntime.errors import InvalidRequest, ProcessNotFound
from buntime.inside import LogPage
from buntime.sandboxes.guest.failures import Impostor
from buntime.sandboxes.guest.frames import Frame
from buntime.sandboxes.inside.processes import LARGEST_ENTRY, MOST_ENTRIES, PageReader

ID = "proc_000000000000000001"
PROCESS = {
    "id": ID,
    "pid": 7,
    "status": "running",
    "startedAt": 1,
    "command": "run",
    "name": None,
    "exitCode": None,
    "endedAt": None,
    "reason": None,
}


def entry(content: bytes, kind: bytes = b"o", time: int = 5) -> Frame:
    return kind, time.to_bytes(6) + content


def end(cursor: object, dropped: object = 0, *, last: object = False, **process: object) -> Frame:
    whole = {"cursor": cursor, "dropped": dropped, "last": last, "process": {**PROCESS, **process}}
    return b"p", json.dumps(whole).encode()


def read(frames: Sequence[Frame], cursor: int = 0, limit: int = 1000) -> list[LogPage]:
    reader = PageReader(ID, cursor, limit)
    return [page for frame in frames if (page := reader.take(frame)) is not None]


def test_a_page_is_its_entries_and_then_their_end() -> None:
    frames = [entry(b"ab"), entry(b"c", b"e", 9), end(8, 5), end(8), entry(b"d"), end(9, last=True)]
    one, two, three = read(frames)
    assert [(e.stream, e.content, e.time) for e in one.entries] == [("stdout", b"ab", 5), ("stderr", b"c", 9)]
    assert (one.cursor, one.dropped, one.last, one.process.pid) == (8, 5, False, 7)
    assert (two.entries, two.cursor) == ([], 8)
    assert (three.cursor, three.last) == (9, True)


@pytest.mark.parametrize(("said", "known"), [({}, 2), ({"end": 1}, 2), ({"end": 9}, 9)])
def test_the_end_of_a_page_is_never_before_its_entries(said: dict[str, int], known: int) -> None:
    kind, told = end(2)
    (page,) = read([entry(b"ab"), (kind, json.dumps({**json.loads(told), **said}).encode())])
    assert page.end == known


@pytest.mark.parametrize(
    "frames",
    [
        [end(1)],
        [entry(b"ab"), end(1)],
        [entry(b"ab"), end(2, 1)],
        [entry(b"")],
        [(b"o", b"short")],
        [(b"x", b"{}")],
        [(b"p", b"{}")],
        [(b"p", b"\xff")],
        [(b"n", b'{"why": "other"}')],
        [entry(bytes(1001)), entry(bytes(LARGEST_ENTRY))],
        [entry(b"a")] * (MOST_ENTRIES + 1),
        [end(-1)],
        [end(0, -1)],
        [end(1 << 60, 1 << 60)],
        [end(0, id="proc_000000000000000002")],
        [end(0, pid=-1)],
        [end(0, pid=1 << 40)],
        [end(0, status="fine")],
        [end(0, status="exited")],
        [end(0, exitCode=3)],
        [end(0, status="exited", exitCode=256)],
        [end(0, command="x" * 1001)],
        [end(0, name="x" * 201)],
        [end(0, reason="x")],
        [end(0, startedAt=1 << 60)],
        [end(0, last="yes")],
    ],
)
def test_invalid_frames_raise_impostor(frames: list[Frame]) -> None:
    with pytest.raises(Impostor):
        read(frames)


def test_refusals_become_errors_for_the_client() -> None:
    with pytest.raises(ProcessNotFound):
        read([(b"n", b'{"why": "absent"}')])
    with pytest.raises(InvalidRequest):
        read([(b"n", b'{"why": "cursor"}')])
