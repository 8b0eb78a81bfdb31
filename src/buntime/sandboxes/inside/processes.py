"""Processes of the session, by way of its guest. Implements `inside.Processes`.

`guest/native/processes/processes.c` describes the protocol. The guest keeps records and logs on the session's volume.
"""

import asyncio
import base64
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from buntime.daemon.tasks import ends_within
from buntime.errors import InvalidRequest, InvalidState, ProcessNotFound, SessionBusy
from buntime.inside import LogEntry, LogPage, NewProcess, Process, ProcessUsage, Reason, Status
from buntime.ports import SandboxGone
from buntime.sandboxes.guest.client import LARGEST_NUMBER, Count, Guest, Nothing
from buntime.sandboxes.guest.failures import UNREADABLE, Impostor
from buntime.sandboxes.guest.frames import ENOUGH, GATHER_SECONDS, STREAMS, Frame, batches
from buntime.sandboxes.inside.ends import Ends
from buntime.sandboxes.inside.launcher import ANSWER_SECONDS, Launcher, Spare
from buntime.sandboxes.machinery import Machinery

COMMAND, NAME = 1000, 200  # characters that are kept
PAGE_BYTES = 1 << 18  # of one page while a log is followed
LARGEST_ENTRY = 1 << 18  # bytes: more than the guest ever puts into an entry
MOST_ENTRIES = 10_000  # in a page
LARGEST_PAGE = 1 << 20  # bytes of a page of processes: 100 escaped commands and names take less
TIME = 6  # bytes of an entry's time
LOOK_SECONDS = 5.0  # how often a silent log checks whether the sandbox still runs

type Listeners = Callable[[int], Awaitable[Set[int]]]  # by port


class _Process(msgspec.Struct, rename="camel"):
    id: str
    pid: Annotated[int, Meta(ge=0, lt=1 << 22)]
    status: Status
    started_at: Count
    command: Annotated[str, Meta(max_length=COMMAND)]
    name: Annotated[str, Meta(max_length=NAME)] | None
    exit_code: Annotated[int, Meta(ge=0, le=255)] | None
    ended_at: Count | None
    reason: Reason | None

    def checked(self, process_id: str | None = None) -> Process:
        """Raises Impostor for an impossible process."""
        if process_id not in (None, self.id) or (self.exit_code is None) != (self.status != "exited"):
            raise Impostor("it describes an impossible process")
        return Process(**{name: getattr(self, name) for name in self.__struct_fields__})


class _One(msgspec.Struct):
    process: _Process | None


class _Page(msgspec.Struct):
    processes: list[_Process]
    total: Count


class _Outcome(msgspec.Struct):
    outcome: Literal["sent", "closed", "busy", "ended", "absent"]


class _LogEnd(msgspec.Struct):
    cursor: Count
    dropped: Count
    last: bool
    process: _Process
    end: Count = 0


class _Refusal(msgspec.Struct):
    why: Literal["absent", "cursor"]


@dataclass(frozen=True, slots=True)
class _Attended:
    process: Process
    launcher: Launcher
    run: str

    async def ended(self) -> ProcessUsage:
        met_limit = self.launcher.met_limit(self.run)
        if met_limit:
            await asyncio.to_thread(self.launcher.kill_run, self.run)
        used = self.launcher.usage(self.run)
        return ProcessUsage(used.cpu_ms, used.peak_memory, used.memory_kills, met_limit)


class GuestProcesses:
    def __init__(
        self, guest: Guest, launcher: Launcher, machinery: Machinery, listeners: Listeners, ends: Ends
    ) -> None:
        self._guest = guest
        self._ends = ends
        self._listeners = listeners
        self._launcher = launcher
        self._machinery = machinery

    async def start(self, new: NewProcess) -> Process:
        async with self.attend(new) as attended:
            return attended.process

    @asynccontextmanager
    async def attend(self, new: NewProcess) -> AsyncIterator[_Attended]:
        body = msgspec.json.encode(self._request(new))
        run = ""

        async def start(spare: Spare) -> Process:
            nonlocal run
            run = spare.run
            self._launcher.hold(run)
            try:
                query = {"spare": str(spare.pid)}
                return (await self._guest.call("POST", "/processes/start", query, _Process, body)).checked(new.id)
            except BaseException:
                self._launcher.release(run)
                raise

        with self._ends.awaiting(new.id, new.name):
            process, _ = await self._launcher.background("processes", start)
        try:
            yield _Attended(process, self._launcher, run)
        finally:
            self._launcher.release(run)

    def _request(self, new: NewProcess) -> dict[str, object]:
        return {
            "id": new.id,
            **({"code": new.code} if new.code is not None else {"command": new.command or ""}),
            "env": {**self._launcher.env, **new.env},
            "cwd": new.working_dir,
            "name": new.name,
            "stdin": None if new.stdin is None else base64.b64encode(new.stdin).decode(),
            "timeout": new.timeout,
            "logBytes": new.log_bytes,
            "allLogBytes": new.all_log_bytes,
        }

    async def list(self, limit: int, offset: int) -> tuple[Sequence[Process], int]:
        query = {"limit": str(limit), "offset": str(offset)}
        page = await self._ask(self._guest.call("GET", "/processes", query, _Page, most=LARGEST_PAGE))
        if len(page.processes) > limit:
            raise SandboxGone("the guest listed more than was asked for")
        async with self._launcher.ending_an_impostor():
            return [process.checked() for process in page.processes], page.total

    async def get(self, process_id: str) -> Process:
        found = await self._ask(self._guest.call("GET", "/processes/one", {"id": process_id}, _One))
        if found.process is None:
            raise ProcessNotFound(process_id)
        async with self._launcher.ending_an_impostor():
            return found.process.checked(process_id)

    async def input(self, process_id: str, content: bytes, *, close: bool) -> None:
        query = {"id": process_id, "close": str(int(close))}
        await self._tell("/processes/input", process_id, query, content)

    async def signal(self, process_id: str, number: int) -> None:
        await self._tell("/processes/signal", process_id, {"id": process_id, "number": str(number)}, b"")

    async def _tell(self, path: str, process_id: str, query: dict[str, str], content: bytes) -> None:
        match (await self._ask(self._guest.call("POST", path, query, _Outcome, content))).outcome:
            case "absent":
                raise ProcessNotFound(process_id)
            case "ended":
                raise InvalidState("The process has ended.", processId=process_id)
            case "closed":
                raise InvalidState("The standard input of the process is closed.", processId=process_id)
            case "busy":
                raise SessionBusy("The process has not read what was sent to it before.", processId=process_id)

    async def logs(self, process_id: str, cursor: int, limit: int) -> LogPage:
        pages = self._pages(process_id, cursor, limit, follow=False)
        try:
            return await self._ask(_first(pages))
        finally:
            await pages.aclose()

    @asynccontextmanager
    async def follow(self, process_id: str, cursor: int) -> AsyncIterator[AsyncIterator[LogPage]]:
        pages = self._pages(process_id, cursor, PAGE_BYTES, follow=True)

        async def whole() -> AsyncGenerator[LogPage]:
            page = first
            while True:
                yield page
                if page.last:
                    return
                if sum(len(entry.content) for entry in page.entries) < ENOUGH:
                    await asyncio.sleep(GATHER_SECONDS)  # a program that writes byte by byte costs little
                async with self._launcher.ending_an_impostor():
                    page = await self._next(pages)

        following = whole()
        try:
            first = await self._ask(_first(pages))
            yield following
        finally:
            await following.aclose()
            await pages.aclose()

    async def _next(self, pages: AsyncGenerator[LogPage]) -> LogPage:
        """Waits without a time limit while the sandbox runs."""
        task: asyncio.Future[LogPage] = asyncio.ensure_future(anext(pages))
        try:
            while not await ends_within(LOOK_SECONDS, task):
                if not self._launcher.is_alive():
                    raise SandboxGone("it ended while a log was followed")
            try:
                return task.result()
            except StopAsyncIteration:
                raise SandboxGone("a followed log ended before its process") from None
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    async def listeners(self, port: int) -> Set[int]:
        return await self._listeners(port)

    async def ending(self, reason: Reason) -> None:
        await self._guest.call("POST", "/processes/ending", {"reason": reason}, Nothing)

    async def settle(self) -> None:
        await self._guest.call("POST", "/processes/settle", {}, Nothing)

    async def _ask[T](self, work: Coroutine[Any, Any, T]) -> T:
        return await self._launcher.in_time(work, ANSWER_SECONDS)

    async def _pages(self, process_id: str, cursor: int, limit: int, *, follow: bool) -> AsyncGenerator[LogPage]:
        """Raises ProcessNotFound, InvalidRequest, and Impostor for pages that our guest never sends."""
        query = {"id": process_id, "cursor": str(cursor), "limit": str(limit), "follow": str(int(follow))}
        reader = PageReader(process_id, cursor, limit)
        async with self._guest.request("GET", "/processes/logs", query) as answer:
            async for frames in batches(answer, LARGEST_ENTRY):
                for frame in frames:
                    page = reader.take(frame)
                    if page is not None:
                        yield page


async def _first(pages: AsyncGenerator[LogPage]) -> LogPage:
    async for page in pages:
        return page
    raise Impostor("its answer has no page")


class PageReader:
    """Turns frames into pages. A page is its entries, and then a frame that says where they end."""

    def __init__(self, process_id: str, cursor: int, limit: int) -> None:
        self._process_id = process_id
        self._cursor = cursor
        self._most = limit + LARGEST_ENTRY
        self._entries: list[LogEntry] = []
        self._size = 0

    def take(self, frame: Frame) -> LogPage | None:
        kind, payload = frame
        if kind in STREAMS:
            self._add(kind, payload)
            return None
        if kind == b"n":
            raise self._refused(payload)
        if kind != b"p":
            raise Impostor("it sent a frame that is not allowed here")
        end = _decoded(payload, _LogEnd)
        at = self._cursor + end.dropped + self._size
        if end.cursor != at or at > LARGEST_NUMBER:
            raise Impostor("its page ends at an impossible position")
        process = end.process.checked(self._process_id)
        page = LogPage(self._entries, at, end.dropped, process, end.last, max(end.end, at))
        self._cursor, self._entries, self._size = at, [], 0
        return page

    def _add(self, kind: bytes, payload: bytes) -> None:
        self._size += len(payload) - TIME
        if len(payload) <= TIME or self._size > self._most or len(self._entries) >= MOST_ENTRIES:
            raise Impostor("it sent an impossible entry")
        self._entries.append(LogEntry(STREAMS[kind], payload[TIME:], int.from_bytes(payload[:TIME])))

    def _refused(self, payload: bytes) -> Exception:
        if _decoded(payload, _Refusal).why == "absent":
            return ProcessNotFound(self._process_id)
        return InvalidRequest("cursor", "cursor does not come from the logs of this process.")


def _decoded[T](text: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except UNREADABLE as wrong:
        raise Impostor("a page of logs has the wrong form") from wrong
