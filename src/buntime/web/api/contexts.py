"""Contexts: code that keeps its variables."""

import re
from collections.abc import Mapping

from msgspec import UNSET, UnsetType

from buntime import errors, inside, requests
from buntime.operations.contexts import Evaluated
from buntime.web.api.sessions import session_id
from buntime.web.operation import Call, operation
from buntime.web.streaming import Out, TextOutput
from buntime.web.wire import contexts as shapes
from buntime.web.wire import core as wire

CONTEXT_ID = re.compile(r"ctx_[a-z0-9]{18}")
START_SECONDS = 60.0  # waking included
FOR_THE_CONTEXT = "A run in a context has the {} of the context: give {} to POST /contexts/create."


def context_id(text: str) -> str:
    if not CONTEXT_ID.fullmatch(text):
        raise errors.ContextNotFound(text[:100])
    return text


def _fields(context: inside.Context) -> dict[str, str]:
    created_at = wire.iso(context.created_at // 1000)
    return {"context_id": context.id, "created_at": created_at, "working_dir": context.working_dir}


@operation(
    "POST",
    "/contexts/create",
    tag="Contexts",
    body=shapes.CreateContext,
    answer=shapes.ContextMade,
    errors=(errors.SessionNotFound, errors.InvalidState, errors.ResourceLimitExceeded, errors.SessionBusy),
    idempotent=True,
    seconds=START_SECONDS,
)
async def create_context(call: Call[wire.NoQuery, shapes.CreateContext]) -> shapes.ContextMade:
    """Start a context: a Bun process that keeps its variables from one run to the next.

    Give its id to `POST /execute`. It is suspended and goes on with the session; deep sleep ends it, and it says so.
    """
    body = call.body
    env: Mapping[str, str] = {} if isinstance(body.env, UnsetType) else body.env
    made = await call.plane.contexts.create(call.caller, session_id(body.session_id), env, body.working_dir)
    return shapes.ContextMade(**_fields(made))


@operation(
    "GET",
    "/contexts/list",
    tag="Contexts",
    query=shapes.ListContextsQuery,
    answer=shapes.Contexts,
    errors=(errors.SessionNotFound, errors.InvalidState),
)
async def list_contexts(call: Call[shapes.ListContextsQuery, None]) -> shapes.Contexts:
    """List the contexts of a session, the oldest first, lost ones too."""
    found = await call.plane.contexts.list(call.caller, session_id(call.query.session_id))
    shown = [shapes.Context(**_fields(one), status=one.status, reason=one.reason, runs=one.runs) for one in found]
    return shapes.Contexts(contexts=shown)


@operation(
    "DELETE",
    "/contexts/delete",
    tag="Contexts",
    query=shapes.ContextQuery,
    answer=shapes.ContextDeleted,
    errors=(errors.SessionNotFound, errors.ContextNotFound, errors.InvalidState),
)
async def delete_context(call: Call[shapes.ContextQuery, None]) -> shapes.ContextDeleted:
    """End a context with all that it has started. What runs in it is killed."""
    query = call.query
    wanted = context_id(query.context_id)
    await call.plane.contexts.delete(call.caller, session_id(query.session_id), wanted)
    return shapes.ContextDeleted(deleted=True, context_id=wanted)


# --- POST /execute with a contextId ---


def check_fields(body: wire.Execute) -> None:
    """Raises InvalidRequest for what a run in a context does not have of its own."""
    if not isinstance(body.command, UnsetType):
        raise errors.InvalidRequest("command", "A context runs code. Leave contextId out to run a command.")
    if body.env:
        raise errors.InvalidRequest("env", FOR_THE_CONTEXT.format("environment", "env"))
    if body.working_dir != "/workspace":
        raise errors.InvalidRequest("workingDir", FOR_THE_CONTEXT.format("working directory", "workingDir"))
    if body.stdin:
        raise errors.InvalidRequest("stdin", "A run in a context has no standard input.")
    if body.detach:
        raise errors.InvalidRequest("detach", "A run in a context cannot be detached.")


async def evaluate(call: Call[wire.NoQuery, wire.Execute], wanted: str, request: requests.Execute) -> shapes.Evaluated:
    done = await call.plane.contexts.run(call.caller, context_id(wanted), request)
    result = done.result
    return shapes.Evaluated(
        stdout=result.stdout.decode(errors="replace"),
        stderr=result.stderr.decode(errors="replace"),
        displayed=[_forms(forms) for forms in result.displayed],
        **_numbers(done),  # type: ignore[arg-type]
    )


async def stream_evaluation(
    call: Call[wire.NoQuery, wire.Execute], wanted: str, request: requests.Execute, out: Out
) -> None:
    output = TextOutput(out)

    async def show(forms: Mapping[str, object]) -> None:
        await out.event("displayed", _forms(forms))

    try:
        done = await call.plane.contexts.stream(
            call.caller, context_id(wanted), request, out.begin_events, output, show
        )
    finally:
        if out.begun:
            await output.finish()
    await out.event("result", shapes.EvaluatedEnd(**_numbers(done)))  # type: ignore[arg-type]


def _numbers(done: Evaluated) -> dict[str, object]:
    result = done.result
    by_itself = result.survived and not result.timed_out and result.exit_code in (0, 1)
    failure = result.failure
    return {
        "exit_code": result.exit_code,
        "execution_time": result.wall_ms,
        "memory_used": result.peak_memory,
        "cpu_time": result.cpu_ms,
        "timed_out": result.timed_out,
        "files_written": list(done.files),
        "truncated": result.truncated or UNSET,
        "files_written_truncated": done.files_truncated or UNSET,
        "process_limit_exceeded": result.met_process_limit or UNSET,
        "result": None if result.value is None else _forms(result.value),
        "error": UNSET if failure is None else _thrown(failure),
        "context_survived": UNSET if by_itself else result.survived,
    }


def _forms(forms: Mapping[str, object]) -> shapes.Forms:
    table = forms.get("table")
    shown = {**forms, **({"table": shapes.Table(**table)} if isinstance(table, dict) else {})}
    return shapes.Forms(**shown)  # type: ignore[arg-type]


def _thrown(failure: inside.ContextFailure) -> shapes.Thrown:
    return shapes.Thrown(name=failure.name, message=failure.message, stack=failure.stack)


OPERATIONS = (create_context, list_contexts, delete_context)
