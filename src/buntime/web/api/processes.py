"""Processes: programs in the background, and their logs."""

import binascii
import itertools
import re
import signal
from collections.abc import Iterator

from msgspec import UNSET, UnsetType

from buntime import errors, inside
from buntime.operations.processes import Begun, Start
from buntime.operations.readiness import LONGEST_WAIT, WaitFor
from buntime.scope import Scope
from buntime.web.api.ids import process_id, session_id
from buntime.web.operation import Call, Streamed, operation
from buntime.web.streaming import Out
from buntime.web.wire import processes as wire
from buntime.web.wire.errors import Failure
from buntime.web.wire.fields import LARGEST_OFFSET
from buntime.web.wire.shapes import NoQuery, given, iso

SLACK_SECONDS = 30.0  # for the wake and the start, on top of the wait for readiness
REFUSED = (errors.SessionNotFound, errors.ProcessNotFound, errors.InvalidState)


def _fields(process: inside.Process) -> dict[str, object]:
    return {
        "process_id": process.id,
        "pid": process.pid,
        "status": process.status,
        "exit_code": process.exit_code,
        "reason": process.reason,
        "started_at": iso(process.started_at // 1000),
        "ended_at": None if process.ended_at is None else iso(process.ended_at // 1000),
        "command": process.command,
        "name": process.name,
    }


def _shown(process: inside.Process) -> wire.Process:
    return wire.Process(**_fields(process))  # type: ignore[arg-type]


def _seconds(call: Call[NoQuery, wire.StartProcess]) -> float:
    asked = call.body.wait_for
    return SLACK_SECONDS + (0 if isinstance(asked, UnsetType) else min(max(asked.timeout, 1), LONGEST_WAIT))


@operation(
    "POST",
    "/processes/start",
    Scope.SESSIONS_WRITE,
    tag="Processes",
    body=wire.StartProcess,
    answer=wire.StartedProcess,
    errors=(
        errors.SessionNotFound,
        errors.InvalidState,
        errors.ResourceLimitExceeded,
        errors.DiskFull,
        errors.OutcomeUnknown,
    ),
    idempotent=True,
    seconds=_seconds,
)
async def start_process(call: Call[NoQuery, wire.StartProcess]) -> wire.StartedProcess:
    """Start a process in the background.

    The session keeps the newest output up to a limit, and the exit status until the session is gone. The process
    suspends and resumes with the session. Deep sleep ends it; its `reason` then says so. With `waitFor` the response
    comes when the process is ready, has ended, or the time is up. A port that another program had before is ready only
    when a new socket listens on it.
    """
    body, asked = call.body, given(call.body.wait_for)
    wait = None if asked is None else WaitFor(given(asked.port), given(asked.output), asked.timeout)
    start = Start(
        session_id(body.session_id),
        code=given(body.code),
        command=given(body.command),
        name=given(body.name),
        env=body.env or {},
        working_dir=body.working_dir,
        timeout=given(body.timeout),
        wait_for=wait,
    )
    return _begun(await call.operations.processes.start(call.caller, start))


def _begun(begun: Begun) -> wire.StartedProcess:
    return wire.StartedProcess(
        **_fields(begun.process),  # type: ignore[arg-type]
        ready=UNSET if begun.ready is None else begun.ready,
        port_was_in_use=begun.port_was_in_use or UNSET,
    )


@operation(
    "GET",
    "/processes/list",
    Scope.SESSIONS_WRITE,
    tag="Processes",
    query=wire.ListProcessesQuery,
    answer=wire.Processes,
    errors=(errors.SessionNotFound, errors.InvalidState),
)
async def list_processes(call: Call[wire.ListProcessesQuery, None]) -> wire.Processes:
    """List the processes of a session.

    Newest first, including those that have ended.
    """
    query = call.query
    found, total = await call.operations.processes.list(
        call.caller, session_id(query.session_id), query.limit, query.offset
    )
    return wire.Processes(processes=[_shown(process) for process in found], total=total)


@operation(
    "GET",
    "/processes/get",
    Scope.SESSIONS_WRITE,
    tag="Processes",
    query=wire.ProcessQuery,
    answer=wire.Process,
    errors=REFUSED,
)
async def get_process(call: Call[wire.ProcessQuery, None]) -> wire.Process:
    """Show a process.

    Its exit code stays available until the session is gone.
    """
    query = call.query
    return _shown(
        await call.operations.processes.get(call.caller, session_id(query.session_id), process_id(query.process_id))
    )


@operation(
    "POST",
    "/processes/input",
    Scope.SESSIONS_WRITE,
    tag="Processes",
    body=wire.ProcessInput,
    answer=wire.Process,
    errors=(*REFUSED, errors.SessionBusy, errors.PayloadTooLarge),
)
async def send_process_input(call: Call[NoQuery, wire.ProcessInput]) -> wire.Process:
    """Write to the standard input of a process.

    409 `session_busy` if it has not read earlier input yet, 409 `invalid_state` if it has ended or its input is closed.
    """
    body = call.body
    content = _content(body)
    return _shown(
        await call.operations.processes.input(
            call.caller, session_id(body.session_id), process_id(body.process_id), content, close=body.close
        )
    )


def _content(body: wire.ProcessInput) -> bytes:
    if body.encoding == "utf8":
        return body.data.encode("utf-8", "replace")
    try:
        return binascii.a2b_base64(body.data, strict_mode=True)
    except ValueError:
        raise errors.InvalidRequest("data", "data is not valid base64.") from None


@operation(
    "POST",
    "/processes/signal",
    Scope.SESSIONS_WRITE,
    tag="Processes",
    body=wire.ProcessSignal,
    answer=wire.Process,
    errors=REFUSED,
)
async def signal_process(call: Call[NoQuery, wire.ProcessSignal]) -> wire.Process:
    """Signal a process.

    The signal goes to everything that the process started too. 409 `invalid_state` if nothing of it still runs.
    """
    body = call.body
    number = signal.Signals[body.signal].value
    return _shown(
        await call.operations.processes.signal(
            call.caller, session_id(body.session_id), process_id(body.process_id), number
        )
    )


def _output(page: inside.LogPage) -> Iterator[tuple[wire.LogEntry, int]]:
    """The page's output, joined where stream and second are the same, and the cursor after each piece."""
    at = page.cursor - sum(len(entry.content) for entry in page.entries)
    for (stream, second), group in itertools.groupby(page.entries, key=lambda one: (one.stream, one.time // 1000)):
        content = b"".join(entry.content for entry in group)
        at += len(content)
        yield wire.LogEntry(stream=stream, data=content.decode(errors="replace"), time=iso(second)), at


def _cursor(call: Call[wire.LogsQuery, None]) -> int:
    """A client that reconnects on its own sends the id of the last event that it got."""
    text = call.last_event_id
    if text is None:
        return call.query.cursor
    if not re.fullmatch(r"[0-9]{1,16}", text) or int(text) > LARGEST_OFFSET:
        raise errors.InvalidRequest("Last-Event-ID", "Last-Event-ID is not the id of an event in these logs.")
    return int(text)


async def _follow(call: Call[wire.LogsQuery, None], out: Out) -> None:
    query = call.query
    where = session_id(query.session_id), process_id(query.process_id), _cursor(call)
    async with call.operations.processes.follow(call.caller, *where) as pages:
        await out.begin_events()
        async for page in pages:
            if page.dropped:
                first = page.cursor - sum(len(entry.content) for entry in page.entries)
                await out.event("dropped", wire.Dropped(bytes=page.dropped), str(first))
            for entry, at in _output(page):
                await out.event(entry.stream, wire.LogOutput(data=entry.data, time=entry.time), str(at))
            if page.last:
                process = page.process
                exited = wire.Exit(status=process.status, exit_code=process.exit_code, reason=process.reason)
                await out.event("exit", exited, str(page.cursor))


@operation(
    "GET",
    "/processes/logs",
    Scope.SESSIONS_WRITE,
    tag="Processes",
    query=wire.LogsQuery,
    answer=wire.Logs,
    errors=(*REFUSED, errors.ResourceLimitExceeded),
    streamed=Streamed(
        _follow,
        events={
            "stdout": wire.LogOutput,
            "stderr": wire.LogOutput,
            "dropped": wire.Dropped,
            "exit": wire.Exit,
            "error": Failure,
        },
        resumes=True,
        when=lambda call: call.query.follow,
        endless=True,
    ),
)
async def get_process_logs(call: Call[wire.LogsQuery, None]) -> wire.Logs:
    """Read the output of a process from a cursor.

    Pass the cursor of one response in the next request to get all output exactly once. With `follow=true` the response
    is a stream of Server-Sent Events until the process ends: `stdout` and `stderr` as they happen, `dropped` if output
    is no longer kept, then one `exit`. Event ids are cursors, and `Last-Event-ID` works like `cursor`. The stream does
    not keep the session awake and is silent while the session is suspended. Deep sleep ends it with an `error`, unless
    the process ended before.
    """
    query = call.query
    page = await call.operations.processes.logs(
        call.caller, session_id(query.session_id), process_id(query.process_id), _cursor(call), query.limit
    )
    process = page.process
    return wire.Logs(
        entries=[entry for entry, _ in _output(page)],
        cursor=page.cursor,
        end=page.end,
        dropped=page.dropped,
        status=process.status,
        exit_code=process.exit_code,
        reason=process.reason,
    )


OPERATIONS = (start_process, list_processes, get_process, send_process_input, signal_process, get_process_logs)
