"""Packing and unpacking archives with the session's own tar."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Protocol

from buntime.daemon.tasks import cancel_and_wait, ends_within
from buntime.errors import BuntimeError, ExecutionTimeout, FileConflict, InvalidRequest
from buntime.inside import NoTickets, Stream, Ticket
from buntime.paths import for_client, shown
from buntime.ports import HELD, Bringing, Run, RunResult
from buntime.sandboxes.inside.programs import Complaints, FileAccess, Runner, limit_met, quoted

LONGEST = 24 * 3600.0  # seconds; lack of progress ends it sooner
STALL_SECONDS = 120.0
AHEAD = 4  # pieces of an archive that may wait for a slow client
CHANGED = 1  # tar's exit code where files changed while it read them
WRONG_KIND, CANNOT_ENTER = 100, 101  # exit codes of our own commands

# tar prints the names without `./`
PACK = (
    "tar() { exec /usr/bin/tar --create --use-compress-program='gzip -1' --one-file-system "
    r"""--transform='flags=rh;s,^\./\(.\),\1,' "$@"; }; """
    f'if [ -d "$P" ]; then cd -- "$P" && tar .; exit {CANNOT_ENTER}; fi; '
    f'if [ -f "$P" ]; then cd -- "${{P%/*}}/" && tar --dereference -- "./${{P##*/}}"; exit {CANNOT_ENTER}; fi; '
    f"exit {WRONG_KIND}"
)
UNPACK = (
    'cd -- "$P" && exec /usr/bin/tar --extract --gzip --verbose --no-same-owner --file=-; '  # prints names to count
    f"exit {CANNOT_ENTER}"
)


UNPACKING = Run(LONGEST, working_dir="/")


@asynccontextmanager
async def pack(files: FileAccess, runner: Runner, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
    await files.status(path)
    pieces, complaints = asyncio.Queue[bytes](AHEAD), Complaints()

    async def sink(stream: Stream, content: bytes) -> None:
        if stream == "stderr":
            complaints.add(content)
        else:
            await pieces.put(content)

    async def whole() -> RunResult:
        try:
            return await runner.run(Run(LONGEST, command=f"P={quoted(path)}; {PACK}", working_dir="/"), sink)
        finally:
            pieces.shutdown()

    running = asyncio.create_task(whole(), name="tar")
    try:
        parts = _parts(pieces, running, path, complaints)
        first = await anext(parts, b"")  # or it raises why there is none
        yield _again(first, parts)
    finally:
        await cancel_and_wait(running)


class Packing:
    """Implements `inside.Outgoing`. `end` tells the guest whether the archive is whole."""

    def __init__(
        self,
        ticket: Ticket,
        end: Callable[[bool], Awaitable[None]],
        running: asyncio.Task[RunResult],
        failed: Callable[[RunResult], BuntimeError],
    ) -> None:
        self.ticket = ticket
        self._end = end
        self._running = running
        self._failed = failed
        self.is_complete = False

    async def complete(self) -> None:
        result = await self._running
        if result.exit_code not in (0, CHANGED):
            raise self._failed(result)
        await self._end(True)
        self.is_complete = True


@asynccontextmanager
async def pack_by_edge(
    files: FileAccess, runner: Runner, path: str, ticket: Ticket, end: Callable[[bool], Awaitable[None]]
) -> AsyncIterator[Packing]:
    await files.status(path)
    first, said, complaints = asyncio.Event(), bytearray(), Complaints()

    async def sink(stream: Stream, content: bytes) -> None:
        if stream == "stderr":
            complaints.add(content)
        else:
            said.extend(content[: len(HELD) + 1 - len(said)])
            first.set()

    run = Run(LONGEST, command=f"P={quoted(path)}; {PACK}", working_dir="/", edge=ticket.secret)
    running = asyncio.create_task(runner.run(run, sink), name="tar")
    beginning = asyncio.create_task(first.wait(), name="beginning of an archive")
    packing = Packing(ticket, end, running, lambda result: _unpacked(result, path, complaints))
    try:
        await asyncio.wait({running, beginning}, return_when=asyncio.FIRST_COMPLETED)
        if not said:
            raise _unpacked(await running, path, complaints)
        if said != HELD:
            raise NoTickets
        yield packing
    finally:
        beginning.cancel()
        is_over = running.done()
        await cancel_and_wait(running)  # which ends it in the guest, unless it has ended
        if is_over and not packing.is_complete:
            await end(False)


async def _again(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for part in rest:
        yield part


async def _parts(
    pieces: asyncio.Queue[bytes], running: asyncio.Task[RunResult], path: str, complaints: Complaints
) -> AsyncIterator[bytes]:
    with suppress(asyncio.QueueShutDown):
        while True:
            try:
                async with asyncio.timeout(STALL_SECONDS):
                    piece = await pieces.get()
            except TimeoutError:
                raise ExecutionTimeout("The session's tar makes no progress.") from None
            yield piece
    result = await running
    if result.exit_code not in (0, CHANGED):
        raise _unpacked(result, path, complaints)


def _unpacked(result: RunResult, path: str, complaints: Complaints) -> BuntimeError:
    """Why there is no archive, or only a part of one."""
    name = for_client(shown(path))
    if result.exit_code == WRONG_KIND:
        return FileConflict(name, "EINVAL", f"{name!r} is neither a directory nor a regular file.")
    return limit_met(result, "tar") or FileConflict(
        name, "EIO", f"{name!r} could not be archived completely: {complaints.first or 'tar failed'}."
    )


async def unpack(files: FileAccess, runner: Runner, path: str, parts: AsyncIterator[bytes]) -> int:
    """See `inside.Files.unpack`."""
    taken = _Taken(parts)
    return await _unpack(files, runner, path, taken, replace(UNPACKING, parts=taken.whole()))


async def unpack_by_edge(files: FileAccess, runner: Runner, path: str, bringing: Bringing) -> int:
    """See `inside.Files.unpack_by_edge`."""
    brought = _Brought(bringing)
    return await _unpack(files, runner, path, brought, replace(UNPACKING, bringing=brought.noticed()))


async def _unpack(files: FileAccess, runner: Runner, path: str, taken: "_Progress", run: Run) -> int:
    await files.make_directory(path)
    complaints = Complaints()

    async def sink(stream: Stream, content: bytes) -> None:
        if stream == "stderr":
            complaints.add(content)
        else:
            taken.entries += content.count(b"\n")

    run = replace(run, command=f"P={quoted(path)}; {UNPACK}")
    running = asyncio.create_task(runner.run(run, sink), name="tar")
    try:
        before = None
        while not await ends_within(STALL_SECONDS, running):
            if taken.progress == before:
                raise ExecutionTimeout("The session's tar makes no progress.")
            before = taken.progress
        result = await running
    finally:
        await cancel_and_wait(running)
    if result.exit_code != 0:
        raise limit_met(result, "tar") or InvalidRequest(
            "body", f"The archive could not be extracted completely: {complaints.first or 'tar failed'}."
        )
    return taken.entries


class _Progress(Protocol):
    """How far the extraction has come."""

    entries: int

    @property
    def progress(self) -> tuple[int, int]: ...


class _Brought:
    """Of what the edge brings. It gives up by itself when tar takes nothing, so waiting for it counts as progress."""

    def __init__(self, bringing: Bringing) -> None:
        self._bringing = bringing
        self._is_carried = False
        self._looks = 0
        self.entries = 0

    @property
    def progress(self) -> tuple[int, int]:
        self._looks += not self._is_carried
        return self._looks, self.entries

    def noticed(self) -> Bringing:
        async def carry(ticket: Ticket) -> None:
            await self._bringing.carry(ticket)
            self._is_carried = True

        return replace(self._bringing, carry=carry)


class _Taken:
    """Of what comes in parts."""

    def __init__(self, parts: AsyncIterator[bytes]) -> None:
        self._parts = parts
        self._size = 0
        self.entries = 0

    @property
    def progress(self) -> tuple[int, int]:
        return self._size, self.entries

    async def whole(self) -> AsyncIterator[bytes]:
        async for part in self._parts:
            self._size += len(part)
            yield part
