"""The files of a session. Paths are relative to `/workspace`, or absolute inside the session."""

import base64
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, TypeAlias, overload

from buntime_sdk import archives
from buntime_sdk._async.calls import AsyncCalls, Call, broken_stream
from buntime_sdk._async.pages import AsyncPages
from buntime_sdk._async.runs import content_on_the_wire, listed_files
from buntime_sdk.arguments import AnyPath, path_text, refusal
from buntime_sdk.deadlines import Deadline
from buntime_sdk.errors import ConnectionFailed, FileConflict, FileNotFound, RequestTimeout
from buntime_sdk.events import ServerEvent
from buntime_sdk.from_json import from_wire
from buntime_sdk.shapes import (
    File,
    FileChange,
    FileEntry,
    FileEvent,
    FileOverflow,
    FileStatus,
    FileWritten,
    SearchResult,
    Watching,
)
from buntime_sdk.waiting import AsyncReader, async_in_thread

PIECE = 1 << 18  # bytes of a local file that are read at once

# Called with the bytes transferred so far, and the total where it is known.
Progress: TypeAlias = Callable[[int, int | None], object]


class AsyncFileWatch:
    """Streams file changes from the start of its block. The first event is `Watching`. Leaving the block ends it."""

    def __init__(self, calls: AsyncCalls, query: dict[str, Any], deadline: Deadline) -> None:
        self._events = AsyncReader(_read(calls, query, deadline))
        self._first: FileEvent | None = None

    async def __aenter__(self) -> Self:
        self._first = await self._events.read()  # changes made inside the block are reported
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FileEvent:
        first, self._first = self._first, None
        return await self._events.read() if first is None else first

    async def close(self) -> None:
        """Ends the watch, even while another task reads it."""
        await self._events.close()


async def _read(calls: AsyncCalls, query: dict[str, Any], deadline: Deadline) -> AsyncGenerator[FileEvent]:
    try:
        async with calls.events(Call("GET", "/files/watch", query, deadline=deadline)) as events, aclosing(events):
            async for event in events:
                told = _file_event(event)
                if told is not None:
                    yield told
    except (ConnectionFailed, RequestTimeout) as failure:
        if deadline.is_past:
            raise TimeoutError(f"The watch reached its timeout of {deadline.seconds:g} seconds.") from failure
        raise
    raise broken_stream()


def _file_event(event: ServerEvent) -> FileEvent | None:
    match event.name:
        case "ready":
            return Watching()
        case "change":
            return from_wire(FileChange, event.told)
        case "overflow":
            return from_wire(FileOverflow, event.told)
    return None


class AsyncFiles:
    """The files of one session. Paths are relative to `/workspace`, or absolute inside the session."""

    def __init__(self, calls: AsyncCalls, session_id: str) -> None:
        self._calls = calls
        self._session_id = session_id

    async def read(self, path: str | PathLike[str]) -> str:
        """Reads a text file up to the plan's file size. `path`: the file.

        Raises FileNotFound, FileConflict, UnicodeDecodeError.
        """
        return (await self.read_bytes(path)).decode()

    async def read_bytes(self, path: str | PathLike[str]) -> bytes:
        """Reads a file up to the plan's file size. `path`: the file.

        Raises FileNotFound, FileConflict, PayloadTooLarge.
        """
        told = await self._calls.json(Call("GET", "/files/read", self._at(path)))
        content: str = told["content"]
        return base64.b64decode(content) if told["encoding"] == "base64" else content.encode()

    @overload
    async def write(
        self, path: str | PathLike[str], content: str | bytes, *, mode: str | None = None, append: bool = False
    ) -> FileWritten: ...

    @overload
    async def write(self, path: Mapping[AnyPath, str | bytes] | Sequence[File]) -> Sequence[FileWritten]: ...

    async def write(
        self,
        path: str | PathLike[str] | Mapping[AnyPath, str | bytes] | Sequence[File],
        content: str | bytes | None = None,
        *,
        mode: str | None = None,
        append: bool = False,
    ) -> FileWritten | Sequence[FileWritten]:
        """Writes a file and makes its parent directories. A concurrent reader sees the old content or the new, never a
        mix.

        `path`: where to write; or several files, as path → content or as a list of `File`. `content`: the content, for
        one path. `mode`: permission bits in octal, such as `"755"`. `append`: add to the end instead of replacing the
        file.

        Several files are written one after another, with a request each. Each file is whole, but the call is not
        atomic: if one fails, those before it stay. To write all or none, give `files` to `Session.execute`. For many
        files, `upload_archive` is faster; for content over the plan's file size, use `upload`.

        Raises FileConflict, PayloadTooLarge, DiskFull; TypeError for one path without content, or several with options.
        """
        if isinstance(path, str | PathLike):
            if content is None:
                raise TypeError("write needs the content of the file.")
            return await self._write(path, content, mode=mode, append=append)
        if content is not None or mode is not None or append:
            raise TypeError("Several files have their own content and mode, and cannot be appended to.")
        return [await self._write(one.path, one.content, mode=one.mode, append=False) for one in listed_files(path)]

    async def _write(
        self, path: str | PathLike[str], content: str | bytes, *, mode: str | None, append: bool
    ) -> FileWritten:
        request = {**self._at(path), **content_on_the_wire(content), "mode": mode, "append": append or None}
        told = await self._calls.json(Call("POST", "/files/write", json=request, repeatable=not append))
        return from_wire(FileWritten, told)

    def list(
        self, path: str | PathLike[str] | None = None, *, recursive: bool = False, page_size: int | None = None
    ) -> AsyncPages[FileEntry]:
        """Lists a directory, sorted by path.

        `path`: the directory; `/workspace` by default. `recursive`: list everything below it. `page_size`: entries a
        request, 1 to 100; 50 by default. Raises FileNotFound, FileConflict.
        """

        async def fetch(offset: int) -> tuple[Sequence[FileEntry], int]:
            query = {**self._at(path), "recursive": recursive or None, "limit": page_size, "offset": offset or None}
            told = await self._calls.json(Call("GET", "/files/list", query))
            return [from_wire(FileEntry, one) for one in told["files"]], told["total"]

        return AsyncPages(fetch, lambda file: (file.path, file.path_base64))

    async def stat(self, path: str | PathLike[str]) -> FileStatus:
        """Describes what is at `path`: a symbolic link is not followed. Raises FileNotFound, FileConflict."""
        return from_wire(FileStatus, await self._calls.json(Call("GET", "/files/stat", self._at(path))))

    async def exists(self, path: str | PathLike[str]) -> bool:
        """Whether anything is at `path`, even a broken symbolic link."""
        try:
            await self.stat(path)
        except FileNotFound:
            return False
        except FileConflict as conflict:  # nothing exists below a file
            if conflict.details.get("reason") != "ENOTDIR":
                raise
            return False
        return True

    async def mkdir(self, path: str | PathLike[str]) -> bool:
        """Makes the directory `path` and its parents. Returns whether it was made.

        Raises FileConflict if something else is there.
        """
        told = await self._calls.json(Call("POST", "/files/mkdir", json=self._at(path), repeatable=True))
        return bool(told["created"])

    async def move(
        self, from_path: str | PathLike[str], to_path: str | PathLike[str], *, overwrite: bool = False
    ) -> str:
        """Moves a file or directory and returns the new path.

        `from_path`: what to move. `to_path`: its new path; parents are made. `overwrite`: replace a file or an empty
        directory there. Raises FileNotFound, and FileConflict if the target exists.
        """
        request = {
            "sessionId": self._session_id,
            "from": path_text(from_path, "from_path"),
            "to": path_text(to_path, "to_path"),
            "overwrite": overwrite or None,
        }
        return str((await self._calls.json(Call("POST", "/files/move", json=request)))["path"])

    async def delete(self, path: str | PathLike[str], *, recursive: bool = False) -> None:
        """Deletes a file or directory. `path`: what to delete. `recursive`: delete a directory with its contents.

        Raises FileNotFound, and FileConflict for a directory that is not empty.
        """
        query = {**self._at(path), "recursive": recursive or None}
        await self._calls.gone(Call("DELETE", "/files/delete", query), "file_not_found")

    async def search(
        self,
        query: str | None = None,
        *,
        glob: str | None = None,
        path: str | PathLike[str] | None = None,
        ignore_case: bool = False,
        limit: int | None = None,
    ) -> SearchResult:
        """Finds lines in files, or files by name. `.git` and `node_modules` are left out.

        `query`: the regular expression that lines must match (ripgrep's syntax); without it, files are found by name
        only. `glob`: only files whose path matches, as in .gitignore. `path`: the directory; `/workspace` by default.
        `ignore_case`: for the query. `limit`: matches, 1 to 1,000; 100 by default.

        Raises InvalidRequest for a bad expression, FileNotFound, FileConflict.
        """
        asked = {
            **self._at(path),
            "glob": glob,
            "query": query,
            "ignoreCase": ignore_case or None,
            "limit": limit,
        }
        return from_wire(SearchResult, await self._calls.json(Call("GET", "/files/search", asked)))

    def watch(
        self, path: str | PathLike[str] | None = None, *, recursive: bool = False, timeout: float | None = None
    ) -> AsyncFileWatch:
        """Watches a directory. Enter its block, then iterate over it.

        `path`: the directory; `/workspace` by default. `recursive`: watch everything below it too. `timeout`: seconds
        from now that the watch may take in all, from 0; None, the default, is no bound. Past it, the watch has ended,
        and nothing changes in the session.

        Raises FileNotFound, FileConflict, ResourceLimitExceeded when it begins, TimeoutError past the timeout, and
        ConnectionFailed when the connection breaks.
        """
        query = {**self._at(path), "recursive": recursive or None}
        return AsyncFileWatch(self._calls, query, Deadline.after(timeout))

    async def chunks(
        self, path: str | PathLike[str], *, start: int = 0, end: int | None = None
    ) -> AsyncGenerator[bytes]:
        """Streams a file of any size.

        `path`: the file. `start`: the first byte. `end`: the byte to stop before; the file's end by default.

        Raises FileNotFound, FileConflict, RangeNotSatisfiable.
        """
        if start < 0:
            raise refusal("start", "start must not be negative.")
        if end is not None and end <= start:
            return  # HTTP cannot express an empty range
        last = "" if end is None else end - 1
        headers = {"Range": f"bytes={start}-{last}"} if start or end is not None else None
        async with self._calls.answer(Call("GET", "/files/content", self._at(path), headers=headers)) as response:
            async for part in response.aiter_bytes():
                yield part

    async def upload(
        self,
        local: str | PathLike[str] | IO[bytes],
        path: str | PathLike[str],
        *,
        mode: str | None = None,
        progress: Progress | None = None,
    ) -> FileWritten:
        """Uploads a local file of any size, or an open file from its current position to its current end.

        `local`: the file here. `path`: the file in the session. `mode`: permission bits in octal, such as `"755"`.
        `progress`: called with the bytes sent so far, and their total where it is known.

        A source that cannot be read twice, such as a pipe, is sent once and never retried. Raises OSError for the local
        file.
        """
        if not isinstance(local, str | PathLike):
            return await self._put("/files/content", local, self._at(path) | {"mode": mode}, progress)
        with archives.opened(Path(local)) as file:
            return await self._put("/files/content", file, self._at(path) | {"mode": mode}, progress)

    async def download(
        self, path: str | PathLike[str], local: str | PathLike[str], *, progress: Progress | None = None
    ) -> int:
        """Downloads a file of any size and returns its size in bytes. The local file appears only when it is complete.

        `path`: the file in the session. `local`: the file here. `progress`: called with the bytes received so far, and
        their total where it is known. Raises OSError.
        """
        with archives.appearing(Path(local)) as file:
            return await self._get(Call("GET", "/files/content", self._at(path)), file, progress)

    async def upload_archive(
        self, local: str | PathLike[str], path: str | PathLike[str], *, progress: Progress | None = None
    ) -> int:
        """Uploads the contents of a local directory into a directory of the session, which is made if needed.

        The contents are packed into a temporary `tar.gz` first. `local`: the directory here. `path`: the directory in
        the session. `progress`: called with the bytes sent so far, and their total. Returns the number of entries.
        Raises OSError for the local directory.
        """
        with tempfile.TemporaryFile() as file:
            await async_in_thread(archives.pack, Path(local), file)
            file.seek(0)
            told = await self._put_raw("/files/archive", file, self._at(path), progress)
            return int(told["entries"])

    async def download_archive(
        self, path: str | PathLike[str], local: str | PathLike[str], *, progress: Progress | None = None
    ) -> None:
        """Downloads the contents of a directory of the session into a local one, which is made if needed.

        Refuses names and links that lead out of the local directory. `path`: the directory in the session. `local`: the
        directory here. `progress`: called with the bytes received so far, and None. Raises OSError, tarfile.TarError.
        """
        with tempfile.TemporaryFile() as file:
            await self._get(Call("GET", "/files/archive", self._at(path)), file, progress)
            file.seek(0)
            await async_in_thread(archives.unpack, file, Path(local))

    async def _put(self, route: str, file: IO[bytes], query: dict[str, Any], progress: Progress | None) -> FileWritten:
        return from_wire(FileWritten, await self._put_raw(route, file, query, progress))

    async def _put_raw(
        self, route: str, file: IO[bytes], query: dict[str, Any], progress: Progress | None
    ) -> dict[str, Any]:
        begin, size = archives.extent(file)

        async def parts() -> AsyncIterator[bytes]:
            file.seek(begin) if size is not None else None
            moved = 0
            while part := await async_in_thread(file.read, PIECE if size is None else min(PIECE, size - moved)):
                yield part
                moved += len(part)
                if progress is not None:
                    progress(moved, size)
            if size is not None and moved < size:
                raise OSError(f"The file shrank while it was being sent: {moved} of {size} bytes.")

        headers = {"Content-Type": "application/octet-stream"}
        if size is not None:
            headers["Content-Length"] = str(size)
        is_seekable = size is not None  # a source that cannot be read again is sent once, whatever the response
        return await self._calls.json(Call("PUT", route, query, body=parts, headers=headers, is_retried=is_seekable))

    async def _get(self, call: Call, file: IO[bytes], progress: Progress | None) -> int:
        moved = 0
        async with self._calls.answer(call) as response:
            size = response.headers.get("content-length")
            async for part in response.aiter_bytes():
                await async_in_thread(file.write, part)
                moved += len(part)
                if progress is not None:
                    progress(moved, int(size) if size else None)
        return moved

    def _at(self, path: str | PathLike[str] | None) -> dict[str, Any]:
        return {"sessionId": self._session_id, "path": None if path is None else path_text(path)}
