"""One method per API operation on the processes of a session."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace

from buntime import errors
from buntime.caller import Caller
from buntime.daemon.tasks import Tasks
from buntime.ids import new_process_id
from buntime.inside import LogPage, NewProcess, Process, ProcessUsage, Sink
from buntime.operations.entrance import Entrance, note_begun
from buntime.operations.readiness import WaitFor, check_pattern, check_wait, is_ready, listeners_before
from buntime.paths import inside_session
from buntime.plan import MB
from buntime.ports import RunResult, Sandbox, SandboxGone
from buntime.requests import check_env
from buntime.session import Session

LONGEST_NAME = 200  # characters
LONGEST_PROGRAM = 8 * MB  # bytes of code or command
INPUT_BYTES = MB  # in one request
LONGEST_TIMEOUT = 604800  # seconds; the longest ttl of a session on most plans


@dataclass(frozen=True, slots=True)
class Start:
    """A process that a client asks for. Has exactly one of `code` and `command`."""

    session_id: str
    code: str | None = None
    command: str | None = None
    name: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = "/workspace"
    timeout: float | None = None
    wait_for: WaitFor | None = None
    stdin: bytes | None = None  # the whole input; None: it stays open for `input`


@dataclass(frozen=True, slots=True)
class Begun:
    """`ready`: None without `wait_for`. `port_was_in_use`: it is not ready, and another program had the port."""

    process: Process
    ready: bool | None = None
    port_was_in_use: bool = False


class Processes:
    def __init__(self, entrance: Entrance, tasks: Tasks, clock: Callable[[], float]) -> None:
        self._entrance = entrance
        self._tasks = tasks
        self._clock = clock

    async def start(self, caller: Caller, asked: Start) -> Begun:
        """Raises ResourceLimitExceeded, and InvalidRequest."""
        asked = check_start(asked)
        async with self._entrance.use(caller, asked.session_id) as (session, sandbox):
            wait_for = asked.wait_for
            if wait_for is not None:
                await check_pattern(sandbox, wait_for)
            new = self._new(caller, session, asked)
            async with self._entrance.place(caller, session, sandbox, "processes"):
                before = set() if wait_for is None else await listeners_before(sandbox, wait_for)
                note_begun()
                # a start goes on when the client leaves: the client finds the process in the list
                process = await self._tasks.finish(sandbox.processes.start(new), f"start of {new.id}")
            if wait_for is None:
                return Begun(process)
            ready = await is_ready(sandbox, process.id, wait_for, before)
            return Begun(await sandbox.processes.get(process.id), ready, bool(before) and not ready)

    async def list(self, caller: Caller, session_id: str, limit: int, offset: int) -> tuple[Sequence[Process], int]:
        """A page of all processes that the session started, newest first, and the total."""
        async with self._entrance.use(caller, session_id) as (_, sandbox):
            return await sandbox.processes.list(limit, offset)

    async def get(self, caller: Caller, session_id: str, process_id: str) -> Process:
        """Raises ProcessNotFound, as all methods do that name a process."""
        async with self._entrance.use(caller, session_id) as (_, sandbox):
            return await sandbox.processes.get(process_id)

    async def input(self, caller: Caller, session_id: str, process_id: str, content: bytes, *, close: bool) -> Process:
        """Raises InvalidState when its standard input is closed, SessionBusy when it does not read."""
        if len(content) > INPUT_BYTES:
            raise errors.PayloadTooLarge(
                f"data may have {INPUT_BYTES} bytes at a time, not {len(content)}.", limit=INPUT_BYTES
            )
        async with self._entrance.use(caller, session_id) as (_, sandbox):
            await sandbox.processes.input(process_id, content, close=close)
            return await sandbox.processes.get(process_id)

    async def signal(self, caller: Caller, session_id: str, process_id: str, number: int) -> Process:
        """Signals the process and everything that it started. Raises InvalidState when nothing of it is left."""
        async with self._entrance.use(caller, session_id) as (_, sandbox):
            await sandbox.processes.signal(process_id, number)
            return await sandbox.processes.get(process_id)

    async def logs(self, caller: Caller, session_id: str, process_id: str, cursor: int, limit: int) -> LogPage:
        async with self._entrance.use(caller, session_id) as (_, sandbox):
            return await sandbox.processes.logs(process_id, cursor, limit)

    @asynccontextmanager
    async def follow(
        self, caller: Caller, session_id: str, process_id: str, cursor: int
    ) -> AsyncIterator[AsyncIterator[LogPage]]:
        """Pages up to the last. Does not keep the session awake. Raises InvalidState when the session's runtime ends;
        the client can go on at the cursor of the last page."""

        def connect(_: Session, sandbox: Sandbox) -> AbstractAsyncContextManager[AsyncIterator[LogPage]]:
            return sandbox.processes.follow(process_id, cursor)

        async with self._entrance.connected(caller, session_id, connect) as (session, pages):
            yield self._told(session, pages)

    async def _told(self, session: Session, pages: AsyncIterator[LogPage]) -> AsyncIterator[LogPage]:
        try:
            async for page in pages:
                yield page
        except SandboxGone:
            raise await self._ended(session) from None

    async def _ended(self, session: Session) -> errors.BuntimeError:
        again = "Ask for the logs with the last cursor: that starts it again, and tells how the process ended."
        if await self._entrance.slept_deep(session):
            return errors.InvalidState(
                f"The session has gone into deep sleep, which ends its processes. {again}", reason="deep_sleep"
            )
        return errors.InvalidState(f"The session's runtime has ended. {again}", reason="runtime_ended")

    async def run(
        self,
        caller: Caller,
        session: Session,
        sandbox: Sandbox,
        asked: Start,
        begun: Callable[[str], Awaitable[None]],
        sink: Sink,
    ) -> RunResult:
        """Starts a process and passes its output to `sink` until it ends. The process goes on when the caller leaves.
        Output that is no longer kept when its turn comes is left out; then the result is truncated."""
        new, started = self._new(caller, session, asked), time.monotonic()
        async with AsyncExitStack() as stack:
            async with self._entrance.place(caller, session, sandbox, "processes"):
                attended = await stack.enter_async_context(sandbox.processes.attend(new))
            await begun(new.id)
            pages = await stack.enter_async_context(sandbox.processes.follow(new.id, 0))
            process, dropped = attended.process, 0
            async for page in pages:
                dropped += page.dropped
                for entry in page.entries:
                    await sink(entry.stream, entry.content)
                process = page.process
            wall_ms = int((time.monotonic() - started) * 1000)
            return _result(process, await attended.ended(), wall_ms, truncated=dropped > 0)

    def _new(self, caller: Caller, session: Session, asked: Start) -> NewProcess:
        log_bytes, all_log_bytes = caller.plan.log_bytes
        return NewProcess(
            id=new_process_id(int(self._clock() * 1000)),
            code=asked.code,
            command=asked.command,
            name=asked.name,
            env={**session.env, **asked.env},
            working_dir=asked.working_dir,
            log_bytes=log_bytes,
            all_log_bytes=all_log_bytes,
            timeout=asked.timeout,
            stdin=asked.stdin,
        )


def _result(process: Process, usage: ProcessUsage, wall_ms: int, *, truncated: bool) -> RunResult:
    return RunResult(
        stdout=b"",
        stderr=b"",
        truncated=truncated,
        exit_code=1 if process.exit_code is None else process.exit_code,
        wall_ms=wall_ms,
        cpu_ms=usage.cpu_ms,
        peak_memory=usage.peak_memory,
        timed_out=process.reason == "timeout",
        out_of_memory=usage.memory_kills > 0,
        disk_full=False,
        met_process_limit=usage.met_process_limit,
        files_written=(),
        files_written_truncated=False,
    )


def check_start(asked: Start) -> Start:
    """The same with its working directory as an absolute path. Raises InvalidRequest."""
    if (asked.code is None) == (asked.command is None):
        raise errors.InvalidRequest("code", "Give exactly one of code and command.")
    field_name, text = ("code", asked.code) if asked.code is not None else ("command", asked.command)
    if "\0" in (text or ""):
        raise errors.InvalidRequest(field_name, f"{field_name} must not contain a NUL character.")
    if len((text or "").encode("utf-8", "surrogatepass")) > LONGEST_PROGRAM:
        raise errors.InvalidRequest(
            field_name, f"{field_name} is longer than {LONGEST_PROGRAM} bytes.", limit=LONGEST_PROGRAM
        )
    if asked.name is not None and not 0 < len(asked.name) <= LONGEST_NAME:
        raise errors.InvalidRequest("name", f"name must have 1 to {LONGEST_NAME} characters.", limit=LONGEST_NAME)
    if asked.timeout is not None and not 1 <= asked.timeout <= LONGEST_TIMEOUT:
        raise errors.InvalidRequest("timeout", f"timeout must be 1 to {LONGEST_TIMEOUT} seconds.")
    check_env(asked.env)
    if asked.wait_for is not None:
        check_wait(asked.wait_for)
    return replace(asked, working_dir=inside_session(asked.working_dir, "workingDir"))
