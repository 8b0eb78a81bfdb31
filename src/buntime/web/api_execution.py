"""Execution: one run, from its code or command to its output."""

from msgspec import UNSET, UnsetType

from buntime import errors, requests
from buntime.errors import InvalidRequest
from buntime.web import wire
from buntime.web.api_sessions import session_id
from buntime.web.contents import files_to_write
from buntime.web.operation import Call, operation

SLACK_SECONDS = 60.0  # for waking, writing files and the answer, beside the program's own time


def _seconds(call: Call[wire.NoQuery, wire.Execute]) -> float:
    """The run's own time-out ends the program first; this one is for what should never happen."""
    asked, most = call.body.timeout, call.caller.plan.most.timeout
    return (most if isinstance(asked, UnsetType) else min(max(asked, 1), most)) + SLACK_SECONDS


@operation(
    "POST",
    "/execute",
    tag="Execution",
    body=wire.Execute,
    answer=wire.Executed,
    errors=(
        errors.SessionNotFound,
        errors.InvalidState,
        errors.FileConflict,
        errors.MemoryLimitExceeded,
        errors.DiskFull,
    ),
    idempotent=True,
    seconds=_seconds,
)
async def execute(call: Call[wire.NoQuery, wire.Execute]) -> wire.Executed:
    """Run code or a command to its end.

    A program that fails, or runs past its timeout, is still a 200: see `exitCode` and `timedOut`. Each run is a
    fresh process: files, packages and background processes carry over, variables and `env` do not.
    """
    body = call.body
    if body.stream:
        raise InvalidRequest("stream", "streaming is not available yet")
    request = requests.Execute(
        session_id=session_id(body.session_id),
        code=None if isinstance(body.code, UnsetType) else body.code,
        command=None if isinstance(body.command, UnsetType) else body.command,
        files=files_to_write(body.files or (), call.caller.plan),
        env=body.env or {},
        timeout=None if isinstance(body.timeout, UnsetType) else body.timeout,
        working_dir=body.working_dir,
        stdin=body.stdin.encode(),
    )
    done = await call.plane.execute(call.caller, request)
    result = done.result
    return wire.Executed(
        stdout=result.stdout.decode(errors="replace"),
        stderr=result.stderr.decode(errors="replace"),
        exit_code=result.exit_code,
        execution_time=result.wall_ms,
        memory_used=result.peak_memory,
        cpu_time=result.cpu_ms,
        timed_out=result.timed_out,
        files_written=list(done.files),
        truncated=result.truncated or UNSET,
        files_written_truncated=done.files_truncated or UNSET,
    )


OPERATIONS = (execute,)
