"""Execution: one run of code or of a command."""

from msgspec import UnsetType

from buntime import errors, requests
from buntime.scope import Scope
from buntime.web.api.evaluation import check_fields, evaluate, stream_evaluation
from buntime.web.api.ids import session_id
from buntime.web.api.runs import TextOutput, end_of, printed
from buntime.web.operation import Call, Streamed, operation
from buntime.web.streaming import Out
from buntime.web.wire import execution as wire
from buntime.web.wire.contexts import Evaluated, EvaluatedEnd, Forms
from buntime.web.wire.encoding import files_to_write
from buntime.web.wire.errors import Failure
from buntime.web.wire.processes import Detached
from buntime.web.wire.shapes import NoQuery, given

SLACK_SECONDS = 60.0  # for the wake, the files and the answer, on top of the program's own time


def _seconds(call: Call[NoQuery, wire.Execute]) -> float:
    """The run's own timeout ends the program first. This one is a last resort."""
    asked, most = call.body.timeout, call.caller.plan.most.timeout
    return (most if isinstance(asked, UnsetType) else min(max(asked, 1), most)) + SLACK_SECONDS


def _request(call: Call[NoQuery, wire.Execute]) -> requests.Execute:
    body = call.body
    return requests.Execute(
        session_id=session_id(body.session_id),
        code=given(body.code),
        command=given(body.command),
        files=files_to_write(body.files or (), call.caller.plan),
        env=body.env or {},
        timeout=given(body.timeout),
        working_dir=body.working_dir,
        stdin=body.stdin.encode(),
    )


async def _stream(call: Call[NoQuery, wire.Execute], out: Out) -> None:
    if not isinstance(call.body.context_id, UnsetType):
        check_fields(call.body)
        await stream_evaluation(call, call.body.context_id, _request(call), out)
        return
    output = TextOutput(out)

    async def detached(process_id: str) -> None:
        await out.begin_events()
        await out.event("process", Detached(process_id=process_id))

    try:
        if call.body.detach:
            done = await call.operations.executions.detach(
                call.caller, _request(call), call.operations.processes, detached, output
            )
        else:
            done = await call.operations.executions.stream(call.caller, _request(call), out.begin_events, output)
    finally:
        if out.begun:
            await output.finish()
    await out.event("result", wire.Ended(**end_of(done)))  # type: ignore[arg-type]


@operation(
    "POST",
    "/execute",
    Scope.SESSIONS_WRITE,
    tag="Execution",
    body=wire.Execute,
    answer=Evaluated,
    errors=(
        errors.SessionNotFound,
        errors.InvalidState,
        errors.FileConflict,
        errors.MemoryLimitExceeded,
        errors.DiskFull,
        errors.ResourceLimitExceeded,
        errors.ContextNotFound,
        errors.ContextLost,
        errors.OutcomeUnknown,
    ),
    idempotent=True,
    ends_with_client=True,
    seconds=_seconds,
    streamed=Streamed(
        _stream,
        events={
            "process": Detached,
            "stdout": wire.Output,
            "stderr": wire.Output,
            "displayed": Forms,
            "result": EvaluatedEnd,
            "error": Failure,
        },
        when=lambda call: call.body.stream,
    ),
)
async def execute(call: Call[NoQuery, wire.Execute]) -> wire.Executed | Evaluated:
    """Run code or a command to its end.

    The status is 200 even if the program fails or times out: see `exitCode` and `timedOut`. Each run is a new process.
    Files, packages and background processes carry over to the next run; variables and `env` do not. The run ends if
    the client disconnects. With an Idempotency-Key it continues, and a request with the same key returns its result.

    With `stream: true` the response is a stream of Server-Sent Events: `stdout` and `stderr` as they happen, a comment
    after every 15 seconds of silence, then exactly one `result` or `error`. The run ends if the client disconnects.
    With `detach: true` as well, the run is a process. Its id comes first, in a `process` event. It continues if the
    client disconnects, and its output is in `/processes/logs`. The files that it writes are not listed.

    With `contextId` the code runs in that context, where variables persist. Runs in one context wait for each other.
    `result` is the value of the last expression, `displayed` has the values passed to `display(value)` (each is a
    `displayed` event in a stream), and `error` is what the code threw. A timeout interrupts the run: see
    `contextSurvived`.
    """
    if not isinstance(call.body.context_id, UnsetType):
        check_fields(call.body)
        return await evaluate(call, call.body.context_id, _request(call))
    if call.body.detach:
        raise errors.InvalidRequest(
            "detach", "detach requires stream: true. Without streaming, use POST /processes/start."
        )
    done = await call.operations.executions.execute(call.caller, _request(call))
    return wire.Executed(**printed(done), **end_of(done))  # type: ignore[arg-type]


OPERATIONS = (execute,)
