"""The fake of `inside.Files`."""

import asyncio
import fnmatch
import io
import posixpath
import re
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from buntime.errors import (
    DiskFull,
    FileConflict,
    FileNotFound,
    InvalidRequest,
    PayloadTooLarge,
    RangeNotSatisfiable,
    SessionBusy,
)
from buntime.inside import Content, FileEntry, FileEvent, FileStatus, FileToWrite, Incoming, Match, Outgoing, Ticket
from buntime.paths import WORKSPACE, for_client, in_bytes, shown
from buntime.plan import MB

PIECE = 1 << 16
LARGE = 1 << 18  # bytes from which on the edge gets a ticket
LEFT_OUT = {".git", "node_modules"}


class File(Protocol):
    content: bytes
    mode: int
    modified: int


class Volume[F: File](Protocol):
    disk: int
    files: dict[str, F]
    directories: set[str]
    now: int

    @property
    def used(self) -> int: ...

    def parents(self, path: str) -> list[str]: ...

    def below(self, path: str) -> list[str]: ...

    def check_parents(self, path: str) -> None: ...

    def write(self, file: FileToWrite) -> int: ...


@dataclass(frozen=True, slots=True)
class FakeIncoming:
    ticket: Ticket
    placed: Callable[[], Awaitable[int]]

    async def finish(self) -> int:
        return await self.placed()


@dataclass(frozen=True, slots=True)
class FakeOutgoing:
    ticket: Ticket

    async def complete(self) -> None: ...


class FakeFiles[F: File]:
    """Files on a fake volume. `check` raises SandboxGone when the sandbox does not run. Globs follow `fnmatch`."""

    def __init__(self, volume: Volume[F], check: Callable[[], None]) -> None:
        self._volume = volume
        self._check = check
        self.carried: dict[str, bytes] = {}  # ticket → what the edge fetches, or has brought
        self.guest = "192.0.2.1:49"  # where the edge shall take tickets; a test may set it
        self.watchers: list[asyncio.Queue[FileEvent | Exception]] = []  # tests may put events in

    async def write_batch(self, files: Sequence[FileToWrite]) -> Sequence[int]:
        self._check()
        volume = self._volume
        for file in files:
            if file.path in volume.directories:
                raise _conflict(file.path, "EISDIR", "is a directory.")
            volume.check_parents(file.path)
        if volume.used + sum(len(file.content) for file in files) > volume.disk * MB:
            raise DiskFull("The session's disk limit is reached.")
        before = dict(volume.files), set(volume.directories)
        try:
            sizes = []
            for file in files:  # one may need a directory where another has put a file
                volume.check_parents(file.path)
                sizes.append(volume.write(file))
        except FileConflict:
            volume.files, volume.directories = before
            raise
        return sizes

    async def read_whole(self, path: str, limit: int) -> bytes:
        self._find(path)
        if path in self._volume.directories:
            raise _conflict(path, "EISDIR", "is a directory.")
        content = self._volume.files[path].content
        if len(content) > limit:
            raise PayloadTooLarge(f"{path!r} is larger than may be read at once.", path=for_client(path))
        return content

    async def list(self, path: str, *, recursive: bool, limit: int, offset: int) -> tuple[Sequence[FileEntry], int]:
        self._find(path)
        if path in self._volume.files:
            raise _conflict(path, "ENOTDIR", "is not a directory.")
        found = [name for name in self._volume.below(path) if recursive or posixpath.dirname(name) == path]
        return [self._entry(name) for name in found[offset : offset + limit]], len(found)

    def _entry(self, path: str) -> FileEntry:
        file = self._volume.files.get(path)
        if file is None:
            return FileEntry(for_client(path), 0, self._volume.now, "directory")
        return FileEntry(for_client(path), len(file.content), file.modified, "file")

    async def delete(self, path: str, *, recursive: bool) -> None:
        self._find(path)
        if path in ("/", WORKSPACE):
            raise _conflict(path, "EBUSY", "is in use by the session itself and cannot be deleted or moved.")
        inside = self._volume.below(path)
        if inside and not recursive:
            raise _conflict(path, "ENOTEMPTY", "is a directory that is not empty.")
        for name in [path, *inside]:
            self._volume.files.pop(name, None)
            self._volume.directories.discard(name)

    @asynccontextmanager
    async def read(
        self, path: str, start: int | None, end: int | None, *, by_edge: bool = False
    ) -> AsyncIterator[Content]:
        self._find(path)
        if path in self._volume.directories:
            raise _conflict(path, "EISDIR", "is a directory.")
        file = self._volume.files[path]
        whole, size = file.content, len(file.content)
        first, last = (start or 0, size if end is None else min(end, size))
        if start is None and end is not None:
            first, last = max(size - end, 0), size
        if (start, end) != (None, None) and first >= last:
            raise RangeNotSatisfiable(for_client(shown(path)), size)
        ticket = self._ticket(whole[first:last]) if by_edge and last - first > LARGE else None
        pieces = _pieces(b"" if ticket else whole[first:last])
        yield Content(size, first, last, file.modified, f"{file.modified}-{size}", pieces, ticket)

    def _ticket(self, content: bytes) -> Ticket:
        ticket = Ticket(self.guest, f"{len(self.carried):032}")
        self.carried[ticket.secret] = content
        return ticket

    @asynccontextmanager
    async def receive(self, path: str, size: int, mode: int | None) -> AsyncIterator[Incoming]:
        """A test puts what the edge brings into `carried`."""
        self._check()
        if path in self._volume.directories:
            raise _conflict(path, "EISDIR", "is a directory.")
        self._volume.check_parents(path)
        ticket = self._ticket(b"")

        async def finish() -> int:
            content = self.carried[ticket.secret]
            if len(content) != size:
                raise SessionBusy("Not all of the upload has come. Send it again.")
            return await self.write(path, _pieces(content), mode)

        yield FakeIncoming(ticket, finish)

    async def write(self, path: str, parts: AsyncIterator[bytes], mode: int | None) -> int:
        self._check()
        if path in self._volume.directories:
            raise _conflict(path, "EISDIR", "is a directory.")
        self._volume.check_parents(path)
        content = bytearray()
        async for part in parts:
            content += part
            if self._volume.used + len(content) > self._volume.disk * MB:
                raise DiskFull("The session's disk limit is reached.")
        event = FileEvent("changed" if path in self._volume.files else "created", for_client(path), "file")
        for told in self.watchers:
            told.put_nowait(event)
        return self._volume.write(FileToWrite(path, bytes(content), mode))

    async def make_directory(self, path: str) -> bool:
        self._check()
        if path in self._volume.files:
            raise _conflict(path, "EEXIST", "exists already.")
        self._volume.check_parents(path)
        if path in self._volume.directories:
            return False
        self._volume.directories.update([*self._volume.parents(path), path])
        return True

    async def move(self, path: str, to: str, *, overwrite: bool) -> None:
        volume = self._volume
        self._find(path)
        if to == path or (to in volume.files or to in volume.directories):
            self._make_way(path, to, overwrite)
        if to.startswith(path + "/"):
            raise _conflict(path, "EINVAL", "cannot be moved into itself.")
        volume.check_parents(to)
        volume.directories.update(volume.parents(to))
        for name in [path, *volume.below(path)]:
            if name in volume.files:
                volume.files[to + name.removeprefix(path)] = volume.files.pop(name)
            else:
                volume.directories.discard(name)
                volume.directories.add(to + name.removeprefix(path))

    def _make_way(self, path: str, to: str, overwrite: bool) -> None:
        volume = self._volume
        if not overwrite:
            raise _conflict(to, "EEXIST", "exists already.")
        if to in volume.directories and path in volume.files:
            raise _conflict(to, "EISDIR", "is a directory.")
        if to in volume.files and path in volume.directories:
            raise _conflict(to, "ENOTDIR", "is not a directory.")
        if volume.below(to) and to != path:
            raise _conflict(to, "ENOTEMPTY", "is a directory that is not empty.")

    async def status(self, path: str) -> FileStatus:
        self._find(path)
        file = self._volume.files.get(path)
        if file is None:
            return FileStatus(for_client(path), "directory", 0, self._volume.now, 0o755)
        return FileStatus(for_client(path), "file", len(file.content), file.modified, file.mode)

    @asynccontextmanager
    async def pack(self, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
        self._find(path)
        packed, volume = io.BytesIO(), self._volume
        above = path if path in volume.directories else posixpath.dirname(path)
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for name in [path, *volume.below(path)] if path in volume.directories else [path]:
                entry = tarfile.TarInfo(posixpath.relpath(name, above))
                file = volume.files.get(name)
                entry.type, entry.mode = (tarfile.DIRTYPE, 0o755) if file is None else (tarfile.REGTYPE, file.mode)
                entry.size = 0 if file is None else len(file.content)
                archive.addfile(entry, None if file is None else io.BytesIO(file.content))
        yield _pieces(packed.getvalue())

    @asynccontextmanager
    async def pack_by_edge(self, path: str) -> AsyncIterator[Outgoing]:
        """A test finds the archive in `carried`."""
        async with self.pack(path) as parts:
            content = b"".join([part async for part in parts])
        yield FakeOutgoing(self._ticket(content))

    async def unpack(self, path: str, parts: AsyncIterator[bytes]) -> int:
        await self.make_directory(path)
        content = b"".join([part async for part in parts])
        entries = 0
        try:
            with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
                for entry in archive:
                    if ".." in entry.name.split("/"):
                        raise InvalidRequest("body", "The archive has a name with '..'.")
                    whole = posixpath.normpath(posixpath.join(path, entry.name.lstrip("/")))
                    opened = archive.extractfile(entry)
                    entries += 1
                    if opened is None:
                        self._volume.directories.update([*self._volume.parents(whole), whole])
                        continue
                    self._volume.write(FileToWrite(whole, opened.read(), entry.mode))
        except (tarfile.TarError, EOFError, OSError) as wrong:
            raise InvalidRequest("body", f"The archive could not be extracted completely: {wrong}.") from None
        return entries

    async def unpack_by_edge(self, path: str, size: int, carry: Callable[[Ticket], Awaitable[None]]) -> int:
        """A test puts what the edge brings into `carried`."""
        ticket = self._ticket(b"")
        await carry(ticket)
        return await self.unpack(path, _pieces(self.carried[ticket.secret]))

    async def search(
        self, path: str, *, glob: str | None, query: str | None, ignore_case: bool, limit: int
    ) -> tuple[Sequence[Match], bool]:
        self._find(path)
        try:
            pattern = None if query is None else re.compile(query, re.IGNORECASE if ignore_case else 0)
        except re.error as wrong:
            raise InvalidRequest("query", f"query is not a regular expression: {wrong}.") from None
        if glob is not None and glob.count("[") != glob.count("]"):
            raise InvalidRequest("glob", "glob is not a glob.")
        found: list[Match] = []
        names = [path] if path in self._volume.files else self._volume.below(path)
        for name in sorted(names, key=in_bytes):
            if name in self._volume.files and not LEFT_OUT & set(name.removeprefix(path).split("/")):
                found += self._matches(name, glob, pattern, ignore_case)
        return found[:limit], len(found) > limit

    def _matches(
        self, name: str, glob: str | None, pattern: re.Pattern[str] | None, ignore_case: bool
    ) -> Sequence[Match]:
        last, told = posixpath.basename(name), for_client(name)
        if glob is not None and not fnmatch.fnmatchcase(
            *((text.lower() if ignore_case else text) for text in (last, glob))
        ):
            return []
        if pattern is None:
            return [Match(told)]
        lines = enumerate(self._volume.files[name].content.decode(errors="replace").splitlines(), 1)
        found = [(number, line, [each.span() for each in pattern.finditer(line)]) for number, line in lines]
        return [Match(told, number, line, spans) for number, line, spans in found if spans]

    @asynccontextmanager
    async def watch(self, path: str, *, recursive: bool) -> AsyncIterator[AsyncIterator[Sequence[FileEvent]]]:
        """Yields an event for each `write`, and events that tests put into the queue. An exception ends it."""
        self._find(path)
        told: asyncio.Queue[FileEvent | Exception] = asyncio.Queue()
        self.watchers.append(told)
        try:
            yield _told(told)
        finally:
            self.watchers.remove(told)

    def _find(self, path: str) -> None:
        self._check()
        self._volume.check_parents(path)
        if path not in self._volume.files and path not in self._volume.directories:
            raise FileNotFound(for_client(shown(path)))


def _conflict(path: str, reason: str, why: str) -> FileConflict:
    name = for_client(shown(path))
    return FileConflict(name, reason, f"{name!r} {why}")


async def _told(told: asyncio.Queue[FileEvent | Exception]) -> AsyncIterator[Sequence[FileEvent]]:
    while True:
        event = await told.get()
        if isinstance(event, Exception):
            raise event
        yield [event]


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), PIECE):
        yield content[start : start + PIECE]
