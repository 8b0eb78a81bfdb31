# Made by `generate` from ../_async/files.py: change that.
"""The files of a session. Paths are relative to `/workspace`, or absolute inside the session."""

import base64
import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from buntime_sdk import archives
from buntime_sdk._sync.calls import Call, Calls, broken_stream
from buntime_sdk._sync.pages import Pages
from buntime_sdk._sync.runs import content_on_the_wire
from buntime_sdk.errors import FileConflict, FileNotFound, InvalidRequest
from buntime_sdk.shapes import (
    FileChange,
    FileEntry,
    FileEvent,
    FileOverflow,
    FileStatus,
    FileWritten,
    SearchResult,
    Watching,
    from_wire,
)
from buntime_sdk.waiting import Reader, in_thread

PIECE = 1 << 18  # bytes of a local file that are read at once

# Called with the bytes moved so far, and how many there are in all where that is known.
type Progress = Callable[[int, int | None], object]


class FileWatch:
    """Changes of files from the beginning of its block on, the first event being `Watching`. Leaving it ends it."""

    def __init__(self, calls: Calls, query: dict[str, Any]) -> None:
        self._events = Reader(_read(calls, query))
        self._first: FileEvent | None = None

    def __enter__(self) -> Self:
        self._first = self._events.read()  # what changes in the block is told
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> FileEvent:
        first, self._first = self._first, None
        return self._events.read() if first is None else first

    def close(self) -> None:
        """Ends it, also for a task that is reading it."""
        self._events.close()


def _read(calls: Calls, query: dict[str, Any]) -> Generator[FileEvent]:
    with calls.events(Call("GET", "/files/watch", query)) as events, closing(events):
        for event in events:
            match event.name:
                case "ready":
                    yield Watching()
                case "change":
                    yield from_wire(FileChange, event.told)
                case "overflow":
                    yield from_wire(FileOverflow, event.told)
    raise broken_stream()


class Files:
    """The files of one session. Paths are relative to `/workspace`, or absolute inside the session."""

    def __init__(self, calls: Calls, session_id: str) -> None:
        self._calls = calls
        self._session_id = session_id

    def read(self, path: str) -> str:
        """The text of a file up to the plan's file size. Raises FileNotFound, FileConflict, UnicodeDecodeError."""
        return (self.read_bytes(path)).decode()

    def read_bytes(self, path: str) -> bytes:
        """The bytes of a file up to the plan's file size. Raises FileNotFound, FileConflict, PayloadTooLarge."""
        told = self._calls.json(Call("GET", "/files/read", self._at(path)))
        content: str = told["content"]
        return base64.b64decode(content) if told["encoding"] == "base64" else content.encode()

    def write(self, path: str, content: str | bytes, *, mode: str | None = None, append: bool = False) -> FileWritten:
        """Parents are made; who reads meanwhile sees the old content or the new. `mode`: in octal, such as `"755"`.

        For content over the plan's file size: `upload`. Raises FileConflict, PayloadTooLarge, DiskFull.
        """
        request = {**self._at(path), **content_on_the_wire(content), "mode": mode, "append": append or None}
        told = self._calls.json(Call("POST", "/files/write", json=request, repeatable=not append))
        return from_wire(FileWritten, told)

    def list(
        self, path: str | None = None, *, recursive: bool = False, page_size: int | None = None
    ) -> Pages[FileEntry]:
        """What is in a directory, `/workspace` by default, by path. Raises FileNotFound, FileConflict."""

        def fetch(offset: int) -> tuple[Sequence[FileEntry], int]:
            query = {**self._at(path), "recursive": recursive or None, "limit": page_size, "offset": offset or None}
            told = self._calls.json(Call("GET", "/files/list", query))
            return [from_wire(FileEntry, one) for one in told["files"]], told["total"]

        return Pages(fetch, lambda file: (file.path, file.path_base64))

    def stat(self, path: str) -> FileStatus:
        """Of the path itself, also where it is a symbolic link. Raises FileNotFound."""
        return from_wire(FileStatus, self._calls.json(Call("GET", "/files/stat", self._at(path))))

    def exists(self, path: str) -> bool:
        """Also of a symbolic link that leads nowhere."""
        try:
            self.stat(path)
        except FileNotFound:
            return False
        except FileConflict as conflict:  # below a file there is nothing
            if conflict.details.get("reason") != "ENOTDIR":
                raise
            return False
        return True

    def mkdir(self, path: str) -> bool:
        """With its parents; whether it was made. Raises FileConflict where something else is there."""
        told = self._calls.json(Call("POST", "/files/mkdir", json=self._at(path), repeatable=True))
        return bool(told["created"])

    def move(self, from_path: str, to_path: str, *, overwrite: bool = False) -> str:
        """The new path. Raises FileNotFound, and FileConflict where something is there already."""
        request = {
            "sessionId": self._session_id,
            "from": from_path,
            "to": to_path,
            "overwrite": overwrite or None,
        }
        return str((self._calls.json(Call("POST", "/files/move", json=request)))["path"])

    def delete(self, path: str, *, recursive: bool = False) -> None:
        """Raises FileNotFound, and FileConflict for a directory that is not empty, unless `recursive`."""
        query = {**self._at(path), "recursive": recursive or None}
        self._calls.gone(Call("DELETE", "/files/delete", query), "file_not_found")

    def search(
        self,
        query: str | None = None,
        *,
        glob: str | None = None,
        path: str | None = None,
        ignore_case: bool = False,
        limit: int | None = None,
    ) -> SearchResult:
        """Lines that match a regular expression (ripgrep's), in files whose names match `glob`; without `query` the
        names alone. `limit`: of matches, 1 to 1,000; 100 by default.
        """
        asked = {
            **self._at(path),
            "glob": glob,
            "query": query,
            "ignoreCase": ignore_case or None,
            "limit": limit,
        }
        return from_wire(SearchResult, self._calls.json(Call("GET", "/files/search", asked)))

    def watch(self, path: str | None = None, *, recursive: bool = False) -> FileWatch:
        """Changes as they happen, in `/workspace` by default: iterate over it, in its block."""
        return FileWatch(self._calls, {**self._at(path), "recursive": recursive or None})

    def chunks(self, path: str, *, start: int = 0, end: int | None = None) -> Generator[bytes]:
        """The bytes of a file of any size as they come, from `start` to before `end`, or to the file's.

        Raises FileNotFound, FileConflict, RangeNotSatisfiable.
        """
        if start < 0:
            raise InvalidRequest("A file begins at 0.", code="invalid_request", details={"field": "start"})
        if end is not None and end <= start:
            return  # HTTP has no words for a part without bytes
        last = "" if end is None else end - 1
        headers = {"Range": f"bytes={start}-{last}"} if start or end is not None else None
        with self._calls.answer(Call("GET", "/files/content", self._at(path), headers=headers)) as response:
            for part in response.iter_bytes():
                yield part

    def upload(
        self,
        local: str | PathLike[str] | IO[bytes],
        path: str,
        *,
        mode: str | None = None,
        progress: Progress | None = None,
    ) -> FileWritten:
        """A local file of any size, or an open one from where it stands, as long as it is now.

        What cannot be read twice, as a pipe, is sent once. Raises OSError for the local file.
        """
        if not isinstance(local, str | PathLike):
            return self._put("/files/content", local, self._at(path) | {"mode": mode}, progress)
        with archives.opened(Path(local)) as file:
            return self._put("/files/content", file, self._at(path) | {"mode": mode}, progress)

    def download(self, path: str, local: str | PathLike[str], *, progress: Progress | None = None) -> int:
        """A file of any size, into a local one that is there when it is whole; its bytes. Raises OSError."""
        with archives.appearing(Path(local)) as file:
            return self._get(Call("GET", "/files/content", self._at(path)), file, progress)

    def upload_archive(self, local: str | PathLike[str], path: str, *, progress: Progress | None = None) -> int:
        """What is in a local directory, into a directory of the session, which is made; how many entries.

        It is packed as `tar.gz` in a temporary file. Raises OSError for the local one.
        """
        with tempfile.TemporaryFile() as file:
            in_thread(archives.pack, Path(local), file)
            file.seek(0)
            told = self._put_raw("/files/archive", file, self._at(path), progress)
            return int(told["entries"])

    def download_archive(self, path: str, local: str | PathLike[str], *, progress: Progress | None = None) -> None:
        """What is in a directory of the session, into a local one, which is made.

        Names and links that lead out of it are refused. Raises OSError, tarfile.TarError.
        """
        with tempfile.TemporaryFile() as file:
            self._get(Call("GET", "/files/archive", self._at(path)), file, progress)
            file.seek(0)
            in_thread(archives.unpack, file, Path(local))

    def _put(self, route: str, file: IO[bytes], query: dict[str, Any], progress: Progress | None) -> FileWritten:
        return from_wire(FileWritten, self._put_raw(route, file, query, progress))

    def _put_raw(self, route: str, file: IO[bytes], query: dict[str, Any], progress: Progress | None) -> dict[str, Any]:
        begin, size = archives.extent(file)

        def parts() -> Iterator[bytes]:
            file.seek(begin) if size is not None else None
            moved = 0
            while part := in_thread(file.read, PIECE if size is None else min(PIECE, size - moved)):
                yield part
                moved += len(part)
                if progress is not None:
                    progress(moved, size)
            if size is not None and moved < size:
                raise OSError(f"The file became shorter while it was sent: {moved} of {size} bytes.")

        headers = {"Content-Type": "application/octet-stream"}
        if size is not None:
            headers["Content-Length"] = str(size)
        is_seekable = size is not None  # what cannot be read again is sent once, whatever the answer
        return self._calls.json(Call("PUT", route, query, body=parts, headers=headers, is_retried=is_seekable))

    def _get(self, call: Call, file: IO[bytes], progress: Progress | None) -> int:
        moved = 0
        with self._calls.answer(call) as response:
            size = response.headers.get("content-length")
            for part in response.iter_bytes():
                in_thread(file.write, part)
                moved += len(part)
                if progress is not None:
                    progress(moved, int(size) if size else None)
        return moved

    def _at(self, path: str | None) -> dict[str, Any]:
        return {"sessionId": self._session_id, "path": path}
