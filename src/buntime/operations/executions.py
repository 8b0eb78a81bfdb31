"""Runs code and commands, each in a new process."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from buntime import errors, requests
from buntime.caller import Caller
from buntime.inside import Evaluation, FileToWrite, Sink
from buntime.operations.entrance import Entrance, note_begun
from buntime.operations.processes import Processes, Start
from buntime.operations.telling import Telling
from buntime.paths import WORKSPACE
from buntime.ports import Run, RunResult, Sandbox
from buntime.requests import Execute
from buntime.session import Session

LISTED_FILES = 1000  # of the files that a run wrote
UNLISTED = {"node_modules", ".git"}


@dataclass(frozen=True, slots=True)
class Executed:
    result: RunResult
    files: Sequence[str]  # what the run and the request wrote under /workspace, relative to it
    files_truncated: bool  # there were more


class Executions:
    def __init__(self, entrance: Entrance, telling: Telling, ran: Callable[[str], None]) -> None:
        """`ran` gets the id of a session when an execution begins in it."""
        self._entrance = entrance
        self._telling = telling
        self._ran = ran

    async def execute(self, caller: Caller, request: Execute) -> Executed:
        """Runs to the end. Raises MemoryLimitExceeded and DiskFull with the partial output in `details`."""
        request = requests.check_execute(request, caller.plan)
        async with self._entrance.use(caller, request.session_id) as (session, sandbox):
            return await self._execute(session, sandbox, request, None)

    async def stream(
        self, caller: Caller, request: Execute, begun: Callable[[], Awaitable[None]], sink: Sink
    ) -> Executed:
        """The same, but passes output to `sink` as it comes; the result and failures have none. Calls `begun` when
        nothing can keep the run from starting any more."""
        request = requests.check_execute(request, caller.plan)
        async with self._entrance.streaming(caller, request.session_id) as (session, sandbox):
            await begun()
            return await self._execute(session, sandbox, request, sink)

    async def detach(
        self,
        caller: Caller,
        request: Execute,
        processes: Processes,
        begun: Callable[[str], Awaitable[None]],
        sink: Sink,
    ) -> Executed:
        """The same, as a process that goes on when the caller leaves. `begun` gets its id. Does not look for files that
        it wrote."""
        request = requests.check_execute(request, caller.plan)
        async with self._entrance.streaming(caller, request.session_id) as (session, sandbox):
            if request.files:
                await self._entrance.write(session, sandbox, request.files)
            self._ran(session.id)
            result = await processes.run(caller, session, sandbox, _start_of(session, request), begun, sink)
        self._telling.executed(session, result)
        raise_for_limits("run", session, result, streamed=True)
        return Executed(result, sorted(shown_files(request.files))[:LISTED_FILES], False)

    async def _execute(self, session: Session, sandbox: Sandbox, request: Execute, sink: Sink | None) -> Executed:
        if request.files:
            await self._entrance.write(session, sandbox, request.files)
        self._ran(session.id)
        note_begun()
        result = await sandbox.run(_run_of(session, request), sink)
        asyncio.get_running_loop().call_soon(self._telling.executed, session, result)  # behind the answer
        raise_for_limits("run", session, result, streamed=sink is not None)
        written = sorted(shown_files(request.files) | set(result.files_written))
        truncated = result.files_written_truncated or len(written) > LISTED_FILES
        return Executed(result, written[:LISTED_FILES], truncated)


def _run_of(session: Session, request: Execute) -> Run:
    return Run(
        timeout=float(request.timeout or session.limits.timeout),
        code=request.code,
        command=request.command,
        env={**session.env, **request.env},
        working_dir=request.working_dir,
        stdin=request.stdin,
    )


def _start_of(session: Session, request: Execute) -> Start:
    return Start(
        request.session_id,
        code=request.code,
        command=request.command,
        env=request.env,
        working_dir=request.working_dir,
        timeout=request.timeout or session.limits.timeout,
        stdin=request.stdin,
    )


def shown_files(files: Sequence[FileToWrite]) -> set[str]:
    """The request's files that the answer lists, by the rule that the guest uses for files that a run wrote."""
    inside = (file.path.removeprefix(WORKSPACE + "/") for file in files if file.path.startswith(WORKSPACE + "/"))
    return {path for path in inside if not UNLISTED & set(path.split("/"))}


def raise_for_limits(
    what: str, session: Session, result: RunResult | Evaluation, *, streamed: bool, **more: object
) -> None:
    """Raises MemoryLimitExceeded or DiskFull for a run that failed because of a limit. A run that succeeded in spite of
    it is a result. The error has the output, unless it was streamed, and `more` in its details."""
    if result.exit_code == 0 or result.timed_out:
        return
    details: dict[str, object] = {"exitCode": result.exit_code, **more}
    if not streamed:
        details |= {
            "stdout": result.stdout.decode(errors="replace"),
            "stderr": result.stderr.decode(errors="replace"),
        }
    if result.out_of_memory:
        limit = session.limits.memory
        raise errors.MemoryLimitExceeded(
            f"The {what} used more than the session's {limit} MB of memory.", limit=limit, **details
        )
    if result.disk_full:
        limit = session.limits.disk
        raise errors.DiskFull(f"The session's {limit} MB of disk are full.", limit=limit, **details)
