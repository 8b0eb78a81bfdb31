"""Contexts: programs that keep their variables between runs."""

from collections.abc import Mapping

from msgspec import UnsetType

from buntime import errors, inside
from buntime.scope import Scope
from buntime.web.api.ids import context_id, session_id
from buntime.web.operation import Call, operation
from buntime.web.wire import contexts as wire
from buntime.web.wire.shapes import NoQuery, iso

START_SECONDS = 60.0  # including the wake


def _fields(context: inside.Context) -> dict[str, str]:
    created_at = iso(context.created_at // 1000)
    return {"context_id": context.id, "created_at": created_at, "working_dir": context.working_dir}


@operation(
    "POST",
    "/contexts/create",
    Scope.SESSIONS_WRITE,
    tag="Contexts",
    body=wire.CreateContext,
    answer=wire.ContextMade,
    errors=(
        errors.SessionNotFound,
        errors.InvalidState,
        errors.ResourceLimitExceeded,
        errors.SessionBusy,
        errors.OutcomeUnknown,
    ),
    idempotent=True,
    seconds=START_SECONDS,
)
async def create_context(call: Call[NoQuery, wire.CreateContext]) -> wire.ContextMade:
    """Start a context.

    A context is a Bun process that keeps its variables between runs.
    Pass its id to `POST /execute`. The context suspends and resumes with the session. Deep sleep ends it; its `reason`
    then says so.
    """
    body = call.body
    env: Mapping[str, str] = {} if isinstance(body.env, UnsetType) else body.env
    made = await call.operations.contexts.create(call.caller, session_id(body.session_id), env, body.working_dir)
    return wire.ContextMade(**_fields(made))


@operation(
    "GET",
    "/contexts/list",
    Scope.SESSIONS_WRITE,
    tag="Contexts",
    query=wire.ListContextsQuery,
    answer=wire.Contexts,
    errors=(errors.SessionNotFound, errors.InvalidState),
)
async def list_contexts(call: Call[wire.ListContextsQuery, None]) -> wire.Contexts:
    """List the contexts of a session.

    Oldest first, including lost ones.
    """
    found = await call.operations.contexts.list(call.caller, session_id(call.query.session_id))
    shown = [wire.Context(**_fields(one), status=one.status, reason=one.reason, runs=one.runs) for one in found]
    return wire.Contexts(contexts=shown)


@operation(
    "DELETE",
    "/contexts/delete",
    Scope.SESSIONS_WRITE,
    tag="Contexts",
    query=wire.ContextQuery,
    answer=wire.ContextDeleted,
    errors=(errors.SessionNotFound, errors.ContextNotFound, errors.InvalidState),
)
async def delete_context(call: Call[wire.ContextQuery, None]) -> wire.ContextDeleted:
    """Delete a context.

    This kills everything that it started.
    """
    query = call.query
    wanted = context_id(query.context_id)
    await call.operations.contexts.delete(call.caller, session_id(query.session_id), wanted)
    return wire.ContextDeleted(deleted=True, context_id=wanted)


OPERATIONS = (create_context, list_contexts, delete_context)
