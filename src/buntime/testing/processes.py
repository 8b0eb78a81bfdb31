"""A fake of `inside.Processes`. A test says what a process prints and how it ends."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from buntime.errors import InvalidRequest, InvalidState, ProcessNotFound
from buntime.inside import Ended, LogEntry, LogPage, NewProcess, Process, ProcessUsage, Reason, Stream

TIME = 1705660200000  # ms
SIGTERM, SIGKILL = 15, 9
KILLED = 128
SERVER = "python3 -m http.server "


@dataclass(slots=True)
class FakeProcess:
    """Prints what a test `says`, and echoes its input. `echo …` prints and ends at once, and `exit N` ends at once.
    `python3 -m http.server PORT` listens, or ends at once if the port is taken. Any other command runs until it is
    signalled or a test `ends` it."""

    new: NewProcess
    now: Process
    exited: Callable[[Ended], None]
    said: list[LogEntry] = field(default_factory=list)
    kept: int = 0  # index of the first entry that is kept
    open: bool = True
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def says(self, content: bytes, stream: Stream = "stdout") -> None:
        self.said.append(LogEntry(stream, content, TIME))
        while sum(len(entry.content) for entry in self.said[self.kept :]) > self.new.log_bytes:
            self.kept += 1
        self._tell()

    def ends(self, exit_code: int, reason: Reason | None = None) -> None:
        is_first = self.now.status == "running"
        self.now = replace(self.now, status="exited", exit_code=exit_code, ended_at=TIME, reason=reason)
        self._tell()
        if is_first and reason != "deep_sleep":
            self.exited(Ended(self.now.id, self.now.name, exit_code, reason))

    def _tell(self) -> None:
        self.news.set()
        self.news = asyncio.Event()

    def page(self, cursor: int, limit: int) -> LogPage:
        starts = [0]
        for entry in self.said:
            starts.append(starts[-1] + len(entry.content))
        if cursor not in starts:
            raise InvalidRequest("cursor", "cursor does not come from the logs of this process.")
        first = max(starts.index(cursor), self.kept)
        last = first
        while last < len(self.said) and (last == first or starts[last + 1] - starts[first] <= limit):
            last += 1
        ended = self.now.status != "running" and last == len(self.said)
        return LogPage(self.said[first:last], starts[last], starts[first] - cursor, self.now, ended, starts[-1])


@dataclass(frozen=True, slots=True)
class FakeAttended:
    process: Process

    async def ended(self) -> ProcessUsage:
        return ProcessUsage(cpu_ms=4, peak_memory=12 << 20, memory_kills=0, met_process_limit=False)


@dataclass(frozen=True, slots=True)
class _Socket:
    port: int
    owner: FakeProcess | None

    @property
    def is_open(self) -> bool:
        return self.owner is None or self.owner.now.status == "running"


def _nobody(_: Ended) -> None: ...


class FakeProcesses:
    def __init__(self, exited: Callable[[Ended], None] = _nobody) -> None:
        """`exited` is called when a process has ended."""
        self._exited = exited
        self.all: dict[str, FakeProcess] = {}
        self._sockets: list[_Socket] = []
        self._reason: Reason | None = None

    @property
    def live(self) -> int:
        return sum(process.now.status == "running" for process in self.all.values())

    async def start(self, new: NewProcess) -> Process:
        command = (new.command if new.command is not None else new.code or "")[:1000]
        started = Process(new.id, len(self.all) + 100, "running", TIME, command, new.name)
        process = self.all[new.id] = FakeProcess(new, started, self._exited, open=new.stdin is None)
        name, _, argument = (new.command or "").partition(" ")
        if name == "echo":
            process.says(argument.encode() + b"\n")
        if name in ("echo", "exit"):
            process.ends(int(argument) if name == "exit" else 0)
        if (new.command or "").startswith(SERVER):
            await self._serve(process, int((new.command or "").removeprefix(SERVER).split()[0]))
        return started

    async def _serve(self, process: FakeProcess, port: int) -> None:
        if await self.listeners(port):
            process.says(b"OSError: [Errno 98] Address already in use\n", "stderr")
            process.ends(1)
        else:
            self._sockets.append(_Socket(port, process))

    def listens(self, port: int) -> None:
        """For tests: one more socket listens on the port, of a program that never ends."""
        self._sockets.append(_Socket(port, None))

    @asynccontextmanager
    async def attend(self, new: NewProcess) -> AsyncIterator[FakeAttended]:
        yield FakeAttended(await self.start(new))

    async def list(self, limit: int, offset: int) -> tuple[Sequence[Process], int]:
        found = [self.all[name].now for name in sorted(self.all, reverse=True)]
        return found[offset : offset + limit], len(found)

    async def get(self, process_id: str) -> Process:
        return self._find(process_id).now

    async def input(self, process_id: str, content: bytes, *, close: bool) -> None:
        process = self._running(process_id)
        if not process.open:
            raise InvalidState("The standard input of the process is closed.", processId=process_id)
        process.open = not close
        if content:
            process.says(content)
        if close:
            process.ends(0)

    async def signal(self, process_id: str, number: int) -> None:
        process = self._running(process_id)
        if number in (SIGTERM, SIGKILL):
            process.ends(KILLED + number, self._reason)

    async def logs(self, process_id: str, cursor: int, limit: int) -> LogPage:
        return self._find(process_id).page(cursor, limit)

    @asynccontextmanager
    async def follow(self, process_id: str, cursor: int) -> AsyncIterator[AsyncIterator[LogPage]]:
        process = self._find(process_id)
        pages = _pages(process, process.page(cursor, 1 << 18))
        try:
            yield pages
        finally:
            await pages.aclose()

    async def listeners(self, port: int) -> Set[int]:
        return {number for number, socket in enumerate(self._sockets) if socket.port == port and socket.is_open}

    async def ending(self, reason: Reason) -> None:
        self._reason = reason

    async def settle(self) -> None: ...

    def end_all(self, reason: Reason) -> None:
        for process in self.all.values():
            if process.now.status == "running":
                process.ends(128 + SIGTERM, reason)

    def _find(self, process_id: str) -> FakeProcess:
        if process_id not in self.all:
            raise ProcessNotFound(process_id)
        return self.all[process_id]

    def _running(self, process_id: str) -> FakeProcess:
        process = self._find(process_id)
        if process.now.status != "running":
            raise InvalidState("The process has ended.", processId=process_id)
        return process


async def _pages(process: FakeProcess, page: LogPage) -> AsyncGenerator[LogPage]:
    while True:
        yield page
        if page.last:
            return
        news = process.news
        following = process.page(page.cursor, 1 << 18)
        while not (following.entries or following.last or following.dropped):
            await news.wait()
            news = process.news
            following = process.page(page.cursor, 1 << 18)
        page = following
