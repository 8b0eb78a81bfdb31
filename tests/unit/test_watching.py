"""Changes that a guest reports are checked, because the guest may be an impostor."""

from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import pytest

from buntime.errors import FileNotFound
from buntime.inside import FileEvent
from buntime.ports import SandboxGone
from buntime.sandboxes.guest.failures import Impostor
from buntime.sandboxes.inside.launcher import Launcher
from buntime.sandboxes.inside.watching import watch
from tests.unit.scripted_guest import answering, streamed
from tests.unit.test_impostor import frame

READY = frame(b"w", b"{}") + frame(b"r", b"{}")


class Trust:
    """A fake launcher with the parts that watching uses."""

    async def in_time(self, work: Coroutine[Any, Any, object], seconds: float) -> object:
        return await work

    @asynccontextmanager
    async def ending_an_impostor(self) -> AsyncIterator[None]:
        yield


async def told(frames: bytes, *, end: bool = True) -> list[FileEvent]:
    found: list[FileEvent] = []
    async with (
        answering(streamed(READY + frames, ends=end)) as guest,
        watch(guest, cast("Launcher", Trust()), "/workspace/a", recursive=True) as all_,
    ):
        try:
            async for some in all_:
                found += some
        except FileNotFound:
            return found
    raise AssertionError("it does not end")


def changes(*events: Mapping[str, object]) -> bytes:
    return frame(b"c", msgspec.json.encode(events))


GONE = frame(b"x", b"{}")


async def test_changes_have_paths_like_those_of_a_listing() -> None:
    events = changes(
        {"event": "created", "path": "b", "type": "file"},
        {"event": "renamed", "path": {"raw": "/w=="}, "from": "c/d"},
        {"event": "deleted", "path": ""},
    )
    lost = frame(b"l", b"{}") + frame(b"u", b'{"path": "deep"}')
    assert await told(events + lost + GONE) == [
        FileEvent("created", "a/b", "file"),
        FileEvent("renamed", "a/\udcff", None, "a/c/d"),
        FileEvent("deleted", "a"),
        FileEvent("overflow", "a"),
        FileEvent("overflow", "a/deep", "directory", unwatched=True),
    ]


WRONG: Sequence[bytes] = [
    frame(b"c", b"[]"),
    frame(b"c", b"{}"),
    changes({"event": "burned", "path": "a"}),
    changes({"event": "renamed", "path": "a"}),
    changes({"event": "created", "path": "a", "type": "car"}),
    changes({"event": "created", "path": "a\0"}),
    changes({"event": "created", "path": {"raw": "?"}}),
    changes(*[{"event": "created", "path": "a"}] * 501),
    frame(b"u", b"{}"),
    frame(b"o", b"output"),
    frame(b"c", bytes((1 << 20) + 1)),
]


@pytest.mark.parametrize("wrong", WRONG)
async def test_invalid_changes_raise_impostor(wrong: bytes) -> None:
    with pytest.raises(Impostor):
        await told(wrong + GONE)


async def test_an_answer_that_ends_early_raises_impostor() -> None:
    with pytest.raises(SandboxGone):
        await told(b"")
