"""One method per API operation on the files of a session."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Protocol

from buntime import errors
from buntime.caller import Caller
from buntime.inside import Content, FileEntry, FileEvent, FileStatus, FileToWrite, Match, Outgoing, Ticket
from buntime.operations import watching
from buntime.operations.entrance import Entrance
from buntime.paths import for_client
from buntime.plan import MB
from buntime.session import Session


class Upload(Protocol):
    """Content as it comes. `length` is in bytes, if the client said it."""

    @property
    def parts(self) -> AsyncIterator[bytes]: ...

    @property
    def length(self) -> int | None: ...


class Files:
    def __init__(self, entrance: Entrance) -> None:
        self._entrance = entrance

    async def write(self, caller: Caller, session_id: str, file: FileToWrite) -> int:
        """Returns the file's new size in bytes."""
        async with self._entrance.use(caller, session_id) as (session, sandbox):
            return (await self._entrance.write(session, sandbox, [file]))[0]

    async def list(
        self, caller: Caller, session_id: str, path: str, *, recursive: bool, limit: int, offset: int
    ) -> tuple[Sequence[FileEntry], int]:
        async with self._entrance.use(caller, session_id) as (_, sandbox):
            return await sandbox.files.list(path, recursive=recursive, limit=limit, offset=offset)

    async def read(self, caller: Caller, session_id: str, path: str) -> bytes:
        """Raises PayloadTooLarge over the plan's file size."""
        async with self._entrance.use(caller, session_id) as (_, sandbox):
            try:
                return await sandbox.files.read_whole(path, caller.plan.file_mb * MB)
            except errors.PayloadTooLarge:
                shown, plan = for_client(path), caller.plan
                raise errors.PayloadTooLarge(
                    f"{shown!r} is larger than the {plan.file_mb} MB that can be read at once on the {plan.name} plan.",
                    plan=plan.name,
                    limit=plan.file_mb * MB,
                    path=shown,
                ) from None

    async def delete(self, caller: Caller, session_id: str, path: str, *, recursive: bool) -> None:
        async with self._entrance.use(caller, session_id) as (_, sandbox):
            await sandbox.files.delete(path, recursive=recursive)

    @asynccontextmanager
    async def content(
        self,
        caller: Caller,
        session_id: str,
        path: str,
        start: int | None,
        end: int | None,
        *,
        by_edge: bool = False,
    ) -> AsyncIterator[Content]:
        """See `inside.Files.read`. The session stays awake within the block."""
        async with (
            self._entrance.streaming(caller, session_id) as (_, sandbox),
            sandbox.files.read(path, start, end, by_edge=by_edge) as content,
        ):
            yield content

    async def upload(self, caller: Caller, session_id: str, path: str, upload: Upload, mode: int | None) -> int:
        """Returns the file's size. Raises DiskFull before it reads anything if the stated length is too large."""
        async with self._entrance.streaming(caller, session_id) as (session, sandbox):
            _check_length(session, upload.length)
            async with AsyncExitStack() as placing:

                async def parts() -> AsyncIterator[bytes]:
                    async for part in upload.parts:
                        yield part
                    await placing.enter_async_context(self._entrance.writing(session))

                return await sandbox.files.write(path, parts(), mode)

    async def upload_by_edge(
        self,
        caller: Caller,
        session_id: str,
        path: str,
        size: int,
        mode: int | None,
        carry: Callable[[Ticket], Awaitable[None]],
    ) -> int:
        """The same for `size` bytes that the edge brings. `carry` returns when it has, or has tried in vain. Raises
        NoTickets, then with nothing done."""
        async with self._entrance.streaming(caller, session_id) as (session, sandbox):
            _check_length(session, size)
            async with sandbox.files.receive(path, size, mode) as incoming:
                await carry(incoming.ticket)
                async with self._entrance.writing(session):
                    return await incoming.finish()

    @asynccontextmanager
    async def archive(self, caller: Caller, session_id: str, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
        async with self._entrance.streaming(caller, session_id) as (_, sandbox), sandbox.files.pack(path) as parts:
            yield parts

    @asynccontextmanager
    async def archive_by_edge(self, caller: Caller, session_id: str, path: str) -> AsyncIterator[Outgoing]:
        """See `inside.Files.pack_by_edge`."""
        async with (
            self._entrance.streaming(caller, session_id) as (_, sandbox),
            sandbox.files.pack_by_edge(path) as outgoing,
        ):
            yield outgoing

    async def extract(self, caller: Caller, session_id: str, path: str, upload: Upload) -> int:
        """Returns how many entries the archive had."""
        async with self._entrance.streaming(caller, session_id) as (session, sandbox):
            _check_length(session, upload.length)
            return await sandbox.files.unpack(path, upload.parts)

    async def extract_by_edge(
        self, caller: Caller, session_id: str, path: str, size: int, carry: Callable[[Ticket], Awaitable[None]]
    ) -> int:
        """See `inside.Files.unpack_by_edge`."""
        async with self._entrance.streaming(caller, session_id) as (session, sandbox):
            _check_length(session, size)
            return await sandbox.files.unpack_by_edge(path, size, carry)

    async def make_directory(self, caller: Caller, session_id: str, path: str) -> bool:
        async with self._entrance.use(caller, session_id) as (_, sandbox):
            return await sandbox.files.make_directory(path)

    async def move(self, caller: Caller, session_id: str, path: str, to: str, *, overwrite: bool) -> None:
        async with self._entrance.use(caller, session_id) as (_, sandbox):
            await sandbox.files.move(path, to, overwrite=overwrite)

    async def status(self, caller: Caller, session_id: str, path: str) -> FileStatus:
        async with self._entrance.use(caller, session_id) as (_, sandbox):
            return await sandbox.files.status(path)

    async def search(
        self,
        caller: Caller,
        session_id: str,
        path: str,
        *,
        glob: str | None,
        query: str | None,
        ignore_case: bool,
        limit: int,
    ) -> tuple[Sequence[Match], bool]:
        async with self._entrance.use(caller, session_id) as (_, sandbox):
            return await sandbox.files.search(path, glob=glob, query=query, ignore_case=ignore_case, limit=limit)

    def watch(
        self, caller: Caller, session_id: str, path: str, *, recursive: bool
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[FileEvent]]]:
        """See `watching.watch`."""
        return watching.watch(self._entrance, caller, session_id, path, recursive=recursive)


def _check_length(session: Session, length: int | None) -> None:
    limit = session.limits.disk
    if length is not None and length > limit * MB:
        raise errors.DiskFull(f"The session's disk has {limit} MB in all.", limit=limit)
