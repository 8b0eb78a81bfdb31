"""Files of the session, by way of its guest. Implements `inside.Files`.

What takes more than one call has its own module: `writing.py`, `listing.py` and `watching.py`. `tarballs.py` and
`searching.py` use programs of the session.
"""

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import msgspec

from buntime.daemon.tasks import cancel_and_wait, ends_within
from buntime.errors import BuntimeError, FileConflict, RangeNotSatisfiable
from buntime.inside import (
    Content,
    FileEntry,
    FileEvent,
    FileKind,
    FileStatus,
    FileToWrite,
    Incoming,
    Match,
    NoTickets,
    Outgoing,
    Ticket,
)
from buntime.paths import for_client, from_bytes, shown
from buntime.ports import Bringing, SandboxGone
from buntime.sandboxes.guest.client import LARGEST_NUMBER, Answer, Count, Guest, Nothing
from buntime.sandboxes.guest.failures import Impostor
from buntime.sandboxes.inside.launcher import ANSWER_SECONDS, Launcher
from buntime.sandboxes.inside.listing import LATEST, list_directory
from buntime.sandboxes.inside.programs import Runner
from buntime.sandboxes.inside.searching import search
from buntime.sandboxes.inside.tarballs import pack, pack_by_edge, unpack, unpack_by_edge
from buntime.sandboxes.inside.watching import watch
from buntime.sandboxes.inside.writing import write_batch

LOOK_SECONDS = 8.0  # how often a long file operation checks whether the guest still answers
STALL_SECONDS = 60.0  # without progress on a file before the guest is given up
DROP_SECONDS = 5.0
HELD_SECONDS = 20.0  # that bytes wait for more: the guest drops an upload of which nothing arrives
PIECE = 1 << 20  # bytes that are sent in one call
LONGEST_TARGET = 4096  # bytes of a symbolic link
UNMOVED = {
    "EEXIST": "exists already; pass overwrite=true to replace it.",
    "EINVAL": "cannot be moved into itself.",
    "ENOTEMPTY": "is a directory that is not empty, so it is not replaced.",
    "EXDEV": "cannot be moved to another file system of the session; copy it, then delete it.",
}


class _Begun(msgspec.Struct):
    upload: str
    held: bool = False


class _Size(msgspec.Struct):
    size: Count


class _Made(msgspec.Struct):
    created: bool


class _Status(msgspec.Struct):
    type: FileKind
    size: int
    modified: int
    mode: int
    target: str | None = None  # base64


async def _room_is_there(size: int) -> None: ...


class GuestFiles:
    def __init__(
        self,
        guest: Guest,
        launcher: Launcher,
        runner: Runner,
        make_room: Callable[[int], Awaitable[None]] = _room_is_there,
    ) -> None:
        """`make_room` is told how many bytes are about to be written."""
        self._guest = guest
        self._launcher = launcher
        self._runner = runner
        self._make_room = make_room

    async def write_batch(self, files: Sequence[FileToWrite]) -> Sequence[int]:
        await self._make_room(sum(len(file.content) for file in files))
        return await self._while_answering(write_batch(self._guest, files))

    async def read_whole(self, path: str, limit: int) -> bytes:
        query = {"path": path, "limit": str(limit)}
        return bytes(await self._while_answering(self._guest.fetch("GET", "/files/read", query, limit)))

    async def list(self, path: str, *, recursive: bool, limit: int, offset: int) -> tuple[Sequence[FileEntry], int]:
        listing = list_directory(self._guest, path, recursive=recursive, limit=limit, offset=offset)
        return await self._while_answering(listing)

    async def delete(self, path: str, *, recursive: bool) -> None:
        query = {"path": path, "recursive": str(int(recursive))}
        await self._while_answering(self._guest.call("POST", "/files/delete", query, Nothing))

    async def _while_answering[T](self, work: Coroutine[Any, Any, T]) -> T:
        """Waits without a time limit, but checks that the guest still answers: one that was stopped never would."""
        task = asyncio.ensure_future(work)
        try:
            while not await ends_within(LOOK_SECONDS, task):
                await self._launcher.in_time(self._guest.check(), ANSWER_SECONDS)
            async with self._launcher.ending_an_impostor():
                return task.result()
        finally:
            task.cancel()

    @asynccontextmanager
    async def read(
        self, path: str, start: int | None, end: int | None, *, by_edge: bool = False
    ) -> AsyncIterator[Content]:
        ticket = self._ticket() if by_edge else None
        query = {"path": path} if ticket is None else {"path": path, "ticket": ticket.secret}
        if start is None and end is not None:
            query["last"] = _asked(end)
        else:
            query |= {"start": _asked(start or 0), "end": _asked(LARGEST_NUMBER if end is None else end)}
        async with self._launcher.ending_an_impostor(), self._answering(query) as answer:
            content = self._content(answer, ticket)
            if (start, end) != (None, None) and content.start == content.end:
                raise RangeNotSatisfiable(for_client(shown(path)), content.total)
            yield content

    @asynccontextmanager
    async def _answering(self, query: Mapping[str, str]) -> AsyncIterator[Answer]:
        async with AsyncExitStack() as stack:
            asking = stack.enter_async_context(self._guest.request("GET", "/contents", query))
            yield await self._launcher.in_time(asking, STALL_SECONDS)

    def _content(self, answer: Answer, ticket: Ticket | None) -> Content:
        total, start, end, modified = (_number(answer, name) for name in ("size", "start", "end", "modified"))
        version = answer.fields.get("version", "")
        if not start <= end <= total or not 0 < len(version) <= 100 or not version.replace("-", "").isalnum():
            raise Impostor("it describes an impossible file")
        held = ticket if "held" in answer.fields else None
        parts = self._parts(answer, end - start if held is None else 0)
        return Content(total, start, end, min(modified, LATEST), version, parts, held)

    async def _parts(self, answer: Answer, size: int) -> AsyncIterator[bytes]:
        left = size
        while left:
            part = await self._launcher.in_time(answer.read(), STALL_SECONDS)
            if not part:
                raise SandboxGone("the file became shorter while it was read")
            if len(part) > left:
                raise Impostor("it sent more of a file than it announced")
            left -= len(part)
            yield part

    def _ticket(self) -> Ticket:
        return Ticket(self._guest.place, secrets.token_hex(16))

    @asynccontextmanager
    async def receive(self, path: str, size: int, mode: int | None) -> AsyncIterator[Incoming]:
        await self._make_room(size)
        ticket = self._ticket()
        query = {"path": path, "ticket": ticket.secret, "size": _asked(size)}
        query |= {} if mode is None else {"mode": str(mode)}
        begun = await self._call("POST", "/uploads", query, _Begun)
        incoming = _Incoming(self, ticket, begun.upload[:100], size)
        try:
            if not begun.held:
                raise NoTickets
            yield incoming
        finally:
            if not incoming.is_finished:
                await self._drop({"upload": incoming.upload})

    async def finish_upload(self, upload: str) -> int:
        """Returns the file's size."""
        return (await self._call("POST", "/uploads/end", {"upload": upload}, _Size)).size

    async def write(self, path: str, parts: AsyncIterator[bytes], mode: int | None) -> int:
        query = {"path": path} if mode is None else {"path": path, "mode": str(mode)}
        begun = await self._call("POST", "/uploads", query, _Begun)
        upload = {"upload": begun.upload[:100]}
        try:
            size = await self._send(upload, parts)
            told = await self._call("POST", "/uploads/end", upload, _Size)
        except BaseException:
            await self._drop(upload)
            raise
        if told.size != size:
            raise SandboxGone("the guest wrote a different size")
        return size

    async def _send(self, upload: Mapping[str, str], parts: AsyncIterator[bytes]) -> int:
        """Sends each piece while the next one arrives. Returns the total size in bytes."""
        size, sending = 0, None
        try:
            async for piece in _pieces(parts):
                await self._make_room(len(piece))
                if sending is not None:
                    await sending
                size += len(piece)
                sending = asyncio.create_task(self._call("POST", "/uploads/part", upload, Nothing, piece))
            if sending is not None:
                await sending
        finally:
            if sending is not None:
                await cancel_and_wait(sending)
        return size

    async def _drop(self, upload: Mapping[str, str]) -> None:
        """Drops the upload at once. If this does not reach the guest, the guest drops it after a while."""
        with suppress(SandboxGone, BuntimeError, TimeoutError):
            async with asyncio.timeout(DROP_SECONDS):
                await self._guest.call("POST", "/uploads/drop", upload, Nothing)

    async def make_directory(self, path: str) -> bool:
        return (await self._call("POST", "/files/mkdir", {"path": path}, _Made)).created

    async def move(self, path: str, to: str, *, overwrite: bool) -> None:
        query = {"from": path, "to": to, "overwrite": str(int(overwrite))}
        try:
            await self._call("POST", "/files/move", query, Nothing)
        except FileConflict as conflict:
            reason, name = str(conflict.details["reason"]), str(conflict.details["path"])
            why = UNMOVED.get(reason)
            raise conflict if why is None else FileConflict(name, reason, f"{name!r} {why}") from None

    async def status(self, path: str) -> FileStatus:
        told = await self._call("GET", "/files/stat", {"path": path}, _Status)
        size, modified = min(max(told.size, 0), LARGEST_NUMBER), min(max(told.modified, 0), LATEST)
        target = None if told.target is None else _target(told.target)
        return FileStatus(for_client(path), told.type, size, modified, told.mode & 0o7777, target)

    def pack(self, path: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return pack(self, self._runner, path)

    def pack_by_edge(self, path: str) -> AbstractAsyncContextManager[Outgoing]:
        ticket = self._ticket()

        async def end(is_whole: bool) -> None:
            query = {"ticket": ticket.secret, "whole": str(int(is_whole))}
            with suppress(SandboxGone, BuntimeError, TimeoutError):
                async with asyncio.timeout(DROP_SECONDS):
                    await self._guest.call("POST", "/output/end", query, Nothing)

        return pack_by_edge(self, self._runner, path, ticket, end)

    async def unpack(self, path: str, parts: AsyncIterator[bytes]) -> int:
        return await unpack(self, self._runner, path, _pieces(parts))

    async def unpack_by_edge(self, path: str, size: int, carry: Callable[[Ticket], Awaitable[None]]) -> int:
        return await unpack_by_edge(self, self._runner, path, Bringing(self._ticket(), size, carry))

    def watch(self, path: str, *, recursive: bool) -> AbstractAsyncContextManager[AsyncIterator[Sequence[FileEvent]]]:
        return watch(self._guest, self._launcher, path, recursive=recursive)

    async def search(
        self, path: str, *, glob: str | None, query: str | None, ignore_case: bool, limit: int
    ) -> tuple[Sequence[Match], bool]:
        return await search(self, self._runner, path, glob, query, ignore_case=ignore_case, limit=limit)

    async def _call[T](self, method: str, path: str, query: Mapping[str, str], kind: type[T], body: bytes = b"") -> T:
        return await self._launcher.in_time(self._guest.call(method, path, query, kind, body), STALL_SECONDS)


class _Incoming:
    """Implements `inside.Incoming`."""

    def __init__(self, files: GuestFiles, ticket: Ticket, upload: str, size: int) -> None:
        self._files = files
        self.ticket = ticket
        self.upload = upload
        self._size = size
        self.is_finished = False

    async def finish(self) -> int:
        size = await self._files.finish_upload(self.upload)
        self.is_finished = True
        if size != self._size:
            raise SandboxGone("the guest wrote a different size")
        return size


async def _pieces(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in pieces that are worth a call each. A slow client's bytes are sent before the guest gives up."""
    clock = asyncio.get_running_loop().time
    held: list[bytes] = []
    size, since = 0, clock()
    async for part in parts:
        held.append(part)
        size += len(part)
        while size >= PIECE or (size and clock() - since > HELD_SECONDS):
            whole = b"".join(held)
            yield whole[:PIECE]
            held, size = [whole[PIECE:]], max(size - PIECE, 0)
            since = clock()
    if size:
        yield b"".join(held)


def _asked(number: int) -> str:
    """The number, cut to one that the guest accepts. No file is larger."""
    return str(min(number, LARGEST_NUMBER))


def _number(answer: Answer, name: str) -> int:
    text = answer.fields.get(name, "")
    if not text.isascii() or not text.removeprefix("-").isdecimal() or len(text) > 17:
        raise Impostor(f"it does not tell the {name} of a file")
    return max(int(text), 0)


def _target(text: str) -> str:
    try:
        target = base64.b64decode(text, validate=True)
    except ValueError:
        raise Impostor("it names the target of a link in invalid base64") from None
    if len(target) > LONGEST_TARGET:
        raise Impostor("it names an impossible target of a link")
    return from_bytes(target)
