"""Watching files, by way of the guest. `guest/native/watching/watching.c` describes the frames."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated

import msgspec

from buntime.errors import FileNotFound, SessionBusy
from buntime.inside import FileEvent, FileKind
from buntime.paths import for_client, shown
from buntime.sandboxes.guest.client import Guest
from buntime.sandboxes.guest.failures import UNREADABLE, Impostor
from buntime.sandboxes.guest.frames import Frame, Parts, batches
from buntime.sandboxes.guest.paths import path_in
from buntime.sandboxes.inside.launcher import ANSWER_SECONDS, Launcher

READY_SECONDS = 60.0  # for large trees; the guest answers at once and then reports when it is ready
MOST_EVENTS, LARGEST_FRAME = 500, 1 << 20  # events of one frame, and its bytes
GATHER_SECONDS = 0.005  # between two reads, so that a guest that reports in crumbs costs little …
GATHER_FRAMES = 50  # … for each so many frames


class _Raw(msgspec.Struct, forbid_unknown_fields=True):
    raw: str


class _Event(msgspec.Struct):
    event: str
    path: str | _Raw
    from_: str | _Raw | None = msgspec.field(name="from", default=None)
    type: FileKind | None = None


_EVENTS = Annotated[list[_Event], msgspec.Meta(min_length=1, max_length=MOST_EVENTS)]


class _Unwatched(msgspec.Struct):
    path: str | _Raw


@asynccontextmanager
async def watch(
    guest: Guest, launcher: Launcher, path: str, *, recursive: bool
) -> AsyncIterator[AsyncIterator[Sequence[FileEvent]]]:
    """See `inside.Files.watch`."""
    query = {"path": path, "recursive": str(int(recursive))}
    async with AsyncExitStack() as stack:
        asking = stack.enter_async_context(guest.request("GET", "/files/watch", query))
        frames = _frames(await launcher.in_time(asking, ANSWER_SECONDS))
        try:
            async with asyncio.timeout(READY_SECONDS):
                while (await _next(frames, launcher))[0] != b"r":
                    pass
        except TimeoutError:
            raise SessionBusy("The session is too busy to start watching such a large directory.") from None
        yield _events(frames, launcher, path)


async def _next(frames: AsyncIterator[Frame], launcher: Launcher) -> Frame:
    async with launcher.ending_an_impostor():
        try:
            return await anext(frames)
        except StopAsyncIteration:
            raise Impostor("its answer stops before the end") from None


async def _frames(answer: Parts) -> AsyncIterator[Frame]:
    async for some in batches(answer, LARGEST_FRAME):
        for frame in some:
            yield frame
        await asyncio.sleep(GATHER_SECONDS * max(len(some) / GATHER_FRAMES, 1))


async def _events(frames: AsyncIterator[Frame], launcher: Launcher, path: str) -> AsyncIterator[Sequence[FileEvent]]:
    while True:
        kind, payload = await _next(frames, launcher)
        if kind == b"x":
            raise FileNotFound(for_client(shown(path)))
        async with launcher.ending_an_impostor():
            events = _told(kind, payload, path)
        if events:
            yield events


def _told(kind: bytes, payload: bytes, path: str) -> Sequence[FileEvent]:
    """Raises Impostor."""
    try:
        if kind == b"c":
            return [_event(event, path) for event in msgspec.json.decode(payload, type=_EVENTS)]
        if kind == b"l":
            return [FileEvent("overflow", for_client(path))]
        if kind == b"u":
            unwatched = msgspec.json.decode(payload, type=_Unwatched)
            return [FileEvent("overflow", _below(path, unwatched.path), "directory", unwatched=True)]
    except UNREADABLE as wrong:
        raise Impostor("it reports a change in the wrong form") from wrong
    raise Impostor("it sent a frame that is not allowed here")


def _event(event: _Event, path: str) -> FileEvent:
    match event.event:
        case "created" | "changed" | "deleted" as kind:
            return FileEvent(kind, _below(path, event.path), event.type)
        case "renamed" if event.from_ is not None:
            return FileEvent("renamed", _below(path, event.path), event.type, _below(path, event.from_))
    raise Impostor("it reports an unknown kind of change")


def _below(path: str, told: str | _Raw) -> str:
    rest = path_in("", told.raw) if isinstance(told, _Raw) else path_in(told, "")
    return for_client(f"{path.rstrip('/')}/{rest}" if rest else path)
