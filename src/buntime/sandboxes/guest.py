"""Speaking to the guest of one sandbox. What it says is checked like user input: it may be an impostor.

The protocol is described in `guest/src/server.ts`. Every method raises SandboxGone when there is no
proper answer, and the errors of `ports.Sandbox` when the guest reports one.
"""

import asyncio
import base64
import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

import aiohttp
import msgspec

from buntime.errors import (
    BuntimeError,
    DiskFull,
    FileConflict,
    FileNotFound,
    InvalidRequest,
    PayloadTooLarge,
    SessionBusy,
)
from buntime.paths import for_client
from buntime.ports import OUTPUT_LIMIT, FileEntry, FileToWrite, Run, SandboxGone
from buntime.room import hold
from buntime.sandboxes.connection import NoGuest, WatchedConnector
from buntime.sandboxes.oci import GUEST_PORT

PROTOCOL = 1
HEADER = "x-buntime-secret"
LARGEST_JSON = 16 << 20  # bytes; a page of 100 names of 4 KiB is far below
LONGEST_PATH = 65536  # characters in what a guest may call a path: in deep trees it is longer than one call takes
MOST_WRITTEN = 1000
LARGEST_NUMBER = 2**53 - 1  # what the store, JSON and JavaScript can all hold
MOST_FRAMES = 1_000_000  # of one run, seconds of our time; a program that prints byte by byte makes a thousand a second
TURN = 1000  # frames, after which others get theirs
FRAME = struct.Struct(">cI")
CHUNK = 1 << 20
CONFLICTS = {
    "EISDIR": "is a directory.",
    "ENOTDIR": "is not a directory, or something above it is not.",
    "EEXIST": "exists already.",
    "ENOTEMPTY": "is a directory that is not empty; pass recursive=true to delete it with its contents.",
    "ELOOP": "goes through too many symbolic links.",
    "EBUSY": "is in use by the session itself and stays.",
    "EFBIG": "has too many entries to list.",
    "EINVAL": "is not a regular file.",
}


class SpareGone(Exception):
    """The parked process for the run is not there any more: take another."""


class Impostor(SandboxGone):
    """What answers is not the guest, or not any more: its sandbox has to end."""


type Count = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_NUMBER)]


class _Health(msgspec.Struct):
    protocol: int


class _Spare(msgspec.Struct):
    pid: int


class _Sizes(msgspec.Struct):
    sizes: list[Count]


class _Status(msgspec.Struct):
    files: Count


class _Entry(msgspec.Struct):
    path: str
    size: int
    modified: int
    type: str


class _Page(msgspec.Struct):
    files: list[_Entry]
    total: Count


class _Failure(msgspec.Struct):
    errno: str
    path: str = ""


class _End(msgspec.Struct, rename="camel"):
    exit_code: int
    truncated: bool = False
    files_written: list[str] = []
    files_written_truncated: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run in the guest's words."""

    stdout: bytes
    stderr: bytes
    end: _End


def new_http_client() -> aiohttp.ClientSession:
    """One for all guests: connections are kept, nothing is stored, unpacked or followed on a guest's word."""
    return aiohttp.ClientSession(
        connector=WatchedConnector(limit=0, keepalive_timeout=60),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        read_bufsize=CHUNK,
    )


class Guest:
    def __init__(self, http: aiohttp.ClientSession, address: str, secret: str, port: int = GUEST_PORT) -> None:
        self._http = http
        self._url = f"http://{address}:{port}"
        self._headers = {HEADER: secret}

    async def check(self) -> None:
        """Raises SandboxGone unless a guest of this protocol answers."""
        if (await self._json("GET", "/health", {}, _Health)).protocol != PROTOCOL:
            raise SandboxGone("the guest speaks another protocol")

    async def spare(self) -> int:
        """A new parked process; its pid inside the sandbox."""
        return (await self._json("POST", "/spares", {}, _Spare)).pid

    async def run(self, spare: int, run: Run, env: Mapping[str, str]) -> Outcome:
        """Raises SpareGone."""
        body = {
            "env": dict(env),
            "cwd": run.working_dir,
            "stdin": base64.b64encode(run.stdin).decode(),
            "maxOutput": OUTPUT_LIMIT,
        }
        body |= {"code": run.code} if run.code is not None else {"command": run.command or ""}
        async with self._request("POST", "/run", {"spare": str(spare)}, msgspec.json.encode(body)) as answer:
            return await _read_frames(answer)

    async def write_files(self, files: Sequence[FileToWrite]) -> list[int]:
        head = msgspec.json.encode(
            {"files": [{"path": f.path, "size": len(f.content), "mode": f.mode, "append": f.append} for f in files]}
        )

        async def body() -> AsyncIterator[bytes]:
            yield struct.pack(">I", len(head)) + head
            for file in files:
                for start in range(0, len(file.content), CHUNK):
                    yield file.content[start : start + CHUNK]

        length = 4 + len(head) + sum(len(file.content) for file in files)
        sizes = (await self._json("POST", "/files/write", {}, _Sizes, body(), length)).sizes
        if len(sizes) != len(files):
            raise SandboxGone("the guest wrote another number of files than asked")
        return sizes

    async def list_files(
        self, path: str, *, recursive: bool, limit: int, offset: int
    ) -> tuple[Sequence[FileEntry], int]:
        query = {"path": path, "recursive": str(int(recursive)), "limit": str(limit), "offset": str(offset)}
        page = await self._json("GET", "/files/list", query, _Page)
        if len(page.files) > limit or any(len(entry.path) > LONGEST_PATH for entry in page.files):
            raise SandboxGone("the guest listed more than asked")
        return [_entry(entry) for entry in page.files], page.total

    async def read_file(self, path: str, limit: int) -> bytes:
        query = {"path": path, "limit": str(limit)}
        async with self._request("GET", "/files/read", query) as answer:
            return await _read_all(answer, limit)

    async def delete_file(self, path: str, *, recursive: bool) -> None:
        await self._json("POST", "/files/delete", {"path": path, "recursive": str(int(recursive))}, dict)

    async def count_files(self) -> int:
        return (await self._json("GET", "/status", {}, _Status)).files

    async def _json[T](
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        kind: type[T],
        body: bytes | AsyncIterator[bytes] | None = None,
        length: int | None = None,
    ) -> T:
        """`length`: of a body that comes in parts, so that it need not be sent in chunks of HTTP."""
        async with self._request(method, path, query, body, length) as answer:
            text = await _read_all(answer, LARGEST_JSON)
        try:
            return msgspec.json.decode(text, type=kind)
        except msgspec.MsgspecError as wrong:
            raise Impostor(f"it answered {path} with something else") from wrong

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: bytes | AsyncIterator[bytes] | None = None,
        length: int | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = self._headers if length is None else {**self._headers, "Content-Length": str(length)}
        try:
            async with self._http.request(
                method,
                self._url + path,
                params=query,
                data=body,
                headers=headers,
                allow_redirects=False,
            ) as answer:
                if answer.status != 200:
                    raise _failure(query, await _read_all(answer, LARGEST_JSON), answer.status)
                yield answer
        except NoGuest as impostor:
            raise Impostor(f"{path}: {impostor}") from impostor
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as gone:
            raise SandboxGone(f"{path}: {gone!r}") from gone


async def _read_all(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body, which must not be longer than asked for."""
    parts, size = [], 0
    async for part in answer.content.iter_any():
        size += len(part)
        if size > limit:
            raise SandboxGone("the guest answered with more than asked")
        hold(len(part))
        parts.append(part)
    return b"".join(parts)


async def _read_frames(answer: aiohttp.ClientResponse) -> Outcome:
    """`o` and `e` output until `x`, the end. Raises Impostor for frames that no guest sends."""
    streams = {b"o": bytearray(), b"e": bytearray()}  # not lists of parts: those may be of one byte
    for number in range(1, MOST_FRAMES + 1):
        kind, length = FRAME.unpack(await answer.content.readexactly(FRAME.size))
        if kind == b"x":
            if length > LARGEST_JSON:
                raise Impostor("its last frame is too large")
            end = _end(await answer.content.readexactly(length))
            return Outcome(bytes(streams[b"o"]), bytes(streams[b"e"]), end)
        if kind not in streams or not 0 < length <= OUTPUT_LIMIT - len(streams[kind]):
            raise Impostor("it sent a frame that it may not")
        hold(length)
        streams[kind] += await answer.content.readexactly(length)
        if number % TURN == 0:
            await asyncio.sleep(0)  # what has come already is read without a pause otherwise
    raise Impostor("it cuts the output into too many frames")


def _end(text: bytes) -> _End:
    try:
        end = msgspec.json.decode(text, type=_End)
    except msgspec.MsgspecError as wrong:
        raise Impostor("its last frame is not what it should be") from wrong
    if not 0 <= end.exit_code <= 255 or len(end.files_written) > MOST_WRITTEN:
        raise SandboxGone("the guest's last frame has impossible numbers")
    if any(len(path) > LONGEST_PATH for path in end.files_written):
        raise SandboxGone("the guest names a path that cannot be")
    return end


def _entry(entry: _Entry) -> FileEntry:
    kinds = {"file": "file", "directory": "directory", "symlink": "symlink"}
    # times before 1970 and after 9999 are what a session may set and no client can read
    modified = min(max(entry.modified, 0), 253402300799)
    size = min(max(entry.size, 0), LARGEST_NUMBER)
    return FileEntry(entry.path, size, modified, kinds.get(entry.type, "other"))  # type: ignore[arg-type]


def _failure(query: Mapping[str, str], text: bytes, status: int) -> Exception:
    """What the guest reports, as the error that a client can act on."""
    try:
        failure = msgspec.json.decode(text, type=_Failure)
    except msgspec.MsgspecError:
        return SandboxGone(f"the guest answered {status}")
    path = for_client((query.get("path") or failure.path)[:LONGEST_PATH])
    return _known_failure(failure.errno, path) or SandboxGone(f"the guest reports {failure.errno[:40]!r}")


def _known_failure(errno: str, path: str) -> BuntimeError | SpareGone | None:
    if errno in CONFLICTS:
        if errno == "EFBIG":
            return PayloadTooLarge(f"{path!r} is larger than may be read or listed at once.", path=path)
        return FileConflict(path, errno, f"{path!r} {CONFLICTS[errno]}")
    makers: dict[str, Callable[[], BuntimeError | SpareGone]] = {
        "ESRCH": lambda: SpareGone(),
        "ENOENT": lambda: FileNotFound(path),
        "ENOSPC": lambda: DiskFull("The session's disk limit is reached."),
        "EDQUOT": lambda: DiskFull("The session's disk limit is reached."),
        "ENAMETOOLONG": lambda: InvalidRequest("path", f"{path[:100]!r}… is longer than the file system takes."),
        "E2BIG": lambda: InvalidRequest(
            "env", "env is larger than the kernel passes to a program (about 5.9 MB in all)."
        ),
    }
    if errno in makers:
        return makers[errno]()
    if errno in {"EPERM", "EACCES", "EROFS", "EMLINK", "ETXTBSY", "EXDEV", "ENXIO"}:
        return FileConflict(path, errno, f"The session's system refuses this for {path!r} ({errno}).")
    if errno in {"EAGAIN", "ENOMEM", "EMFILE", "ENFILE"}:
        return SessionBusy(f"The session has too much running to do this now ({errno}). Try again, or end something.")
    return None
