"""Sessions: create, show, list, change, delete, sleep, wake, recover."""

from msgspec import UNSET, UnsetType

from buntime import errors, requests, session
from buntime.errors import InvalidRequest, SessionNotFound
from buntime.image import DEFAULT_IMAGE
from buntime.lifecycle.recovering import Recovered
from buntime.scope import Scope
from buntime.web.api.ids import session_id, snapshot_id
from buntime.web.api.session_shapes import (
    asked_limits,
    asked_network,
    asked_policy,
    asked_preview,
    asked_services,
    asked_ttl,
    check_depth,
    created,
    shown,
)
from buntime.web.operation import Call, operation
from buntime.web.wire import sessions as wire
from buntime.web.wire.shapes import NoQuery, encode, given, iso


@operation(
    "POST",
    "/sessions/create",
    Scope.SESSIONS_WRITE,
    tag="Sessions",
    body=wire.CreateSession,
    body_optional=True,
    answer=wire.Created,
    errors=(
        errors.ImageNotFound,
        errors.SnapshotNotFound,
        errors.SessionLimitExceeded,
        errors.NameTaken,
        errors.InvalidState,
    ),
    idempotent=True,
    settles=True,
    headers=("Session-Existing",),
)
async def create_session(call: Call[NoQuery, wire.CreateSession]) -> wire.Created:
    """Create a session.

    When the response arrives, the session is stored durably and its runtime is ready. An empty body, of any content
    type, means the defaults. With `onConflict` `return`, the response is the living session of the `name` if there is
    one, as it is, with `Session-Existing: true`.
    """
    body = call.body
    check_depth(body.metadata)
    if body.image is not UNSET and body.snapshot_id is not UNSET:
        raise InvalidRequest("snapshotId", "Give image or snapshotId, not both: a snapshot has its image.")
    new = requests.NewSession(
        ttl=asked_ttl(given(body.ttl)),
        metadata=body.metadata or {},
        limits=asked_limits(body.resource_limits),
        preview=asked_preview(body.preview or None) or session.DEFAULT_PREVIEW,
        network=asked_network(body.network or None) or session.DEFAULT_NETWORK,
        on_wake=given(body.on_wake),
        env=body.env or {},
        sleep_policy=asked_policy(body.sleep_policy or None) or session.DEFAULT_SLEEP_POLICY,
        image=DEFAULT_IMAGE if body.image is UNSET else body.image,
        snapshot=None if body.snapshot_id is UNSET else snapshot_id(body.snapshot_id),
        name=given(body.name),
        services=asked_services(body.services or None),
        or_existing=body.on_conflict == "return",
    )
    answer = call.answer
    made = await call.operations.sessions.create(
        call.caller, new, answer and (lambda made: answer(encode(created(made, call.config)))), call.next_hosts
    )
    if made.existed:
        call.told["session-existing"] = "true"
    return created(made.session, call.config)


@operation(
    "GET",
    "/sessions",
    Scope.SESSIONS_READ,
    tag="Sessions",
    query=wire.SessionsQuery,
    filters=True,
    answer=wire.Sessions,
)
async def list_sessions(call: Call[wire.SessionsQuery, None]) -> wire.Sessions:
    """List the account's sessions, newest first.

    Besides the parameters below, `metadata.KEY=VALUE` selects the sessions whose metadata has that value under that
    top-level key. Numbers and booleans match their JSON text. Listing does not wake a session.
    """
    query = call.query
    views, total = await call.operations.sessions.list(
        call.caller,
        state=session.State(query.state) if query.state else None,
        name=given(query.name),
        metadata=call.filters,
        limit=query.limit,
        offset=query.offset,
    )
    return wire.Sessions(sessions=[shown(view, call.config) for view in views], total=total)


@operation(
    "GET", "/sessions/{sessionId}", Scope.SESSIONS_READ, tag="Sessions", answer=wire.Session, errors=(SessionNotFound,)
)
async def get_session(call: Call[NoQuery, None]) -> wire.Session:
    """Show a session.

    This does not wake the session and does not count as activity.
    """
    view = await call.operations.sessions.get(call.caller, session_id(call.path["sessionId"]))
    return shown(view, call.config)


@operation(
    "PATCH",
    "/sessions/{sessionId}",
    Scope.SESSIONS_WRITE,
    tag="Sessions",
    body=wire.PatchSession,
    answer=wire.Session,
    errors=(SessionNotFound, errors.NameTaken),
)
async def patch_session(call: Call[NoQuery, wire.PatchSession]) -> wire.Session:
    """Change a session.

    Each field replaces the whole old value, and null restores the default. `ttl` counts from now. This does not wake
    the session and does not count as activity.
    """
    body, unset = call.body, requests.UNSET
    check_depth(body.metadata)
    patch = requests.Patch(
        ttl=unset if isinstance(body.ttl, UnsetType) else asked_ttl(body.ttl),
        metadata=unset if body.metadata is UNSET else body.metadata,
        preview=unset if body.preview is UNSET else asked_preview(body.preview),
        network=unset if body.network is UNSET else asked_network(body.network),
        on_wake=unset if body.on_wake is UNSET else body.on_wake,
        env=unset if body.env is UNSET else body.env,
        sleep_policy=unset if body.sleep_policy is UNSET else asked_policy(body.sleep_policy),
        name=unset if body.name is UNSET else body.name,
        services=unset if body.services is UNSET else asked_services(body.services),
    )
    view = await call.operations.sessions.patch(call.caller, session_id(call.path["sessionId"]), patch)
    return shown(view, call.config)


@operation(
    "DELETE",
    "/sessions/{sessionId}",
    Scope.SESSIONS_WRITE,
    tag="Sessions",
    answer=wire.Deleted,
    errors=(SessionNotFound,),
)
async def delete_session(call: Call[NoQuery, None]) -> wire.Deleted:
    """Delete a session.

    When the response arrives, the session's processes and files are gone, or their removal is durably recorded. A
    second delete returns 404.
    """
    wanted = session_id(call.path["sessionId"])
    await call.operations.sessions.delete(call.caller, wanted)
    return wire.Deleted(deleted=True, session_id=wanted)


@operation(
    "POST",
    "/sessions/{sessionId}/sleep",
    Scope.SESSIONS_WRITE,
    tag="Sessions",
    body=wire.Sleep,
    body_optional=True,
    answer=wire.Session,
    errors=(SessionNotFound, errors.SessionBusy),
)
async def sleep_session(call: Call[NoQuery, wire.Sleep]) -> wire.Session:
    """Put a session to sleep now.

    `idle` suspends all processes; the next request finds them as they were. `deep-sleep` ends them, first with SIGTERM;
    files stay, and the next request starts the session again with them. While another request uses the session, the
    response is 409 `session_busy`.
    """
    depth = session.State(call.body.depth)
    view = await call.operations.sessions.sleep(call.caller, session_id(call.path["sessionId"]), depth)
    return shown(view, call.config)


@operation(
    "POST",
    "/sessions/{sessionId}/wake",
    Scope.SESSIONS_WRITE,
    tag="Sessions",
    answer=wire.Woken,
    errors=(SessionNotFound, errors.InvalidState),
)
async def wake_session(call: Call[NoQuery, None]) -> wire.Woken:
    """Wake a session.

    A session that is awake stays as it is.
    """
    woken = await call.operations.sessions.wake(call.caller, session_id(call.path["sessionId"]))
    view = shown(woken.view, call.config)
    fields = {name: getattr(view, name) for name in view.__struct_fields__}
    return wire.Woken(**fields, woke_from=woken.woke_from.value, wake_time_ms=woken.milliseconds)  # type: ignore[arg-type]


@operation(
    "POST",
    "/sessions/{sessionId}/recover",
    Scope.SESSIONS_WRITE,
    tag="Sessions",
    body=wire.Recover,
    body_optional=True,
    answer=wire.Recovered,
    errors=(SessionNotFound, errors.SessionBusy, errors.InvalidState),
    idempotent=True,
    settles=True,
)
async def recover_session(call: Call[NoQuery, wire.Recover]) -> wire.Recovered:
    """Continue a session whose files are lost from what the archive has of them.

    For a session whose requests return 409 `invalid_state` with `details.reason` `volume_lost`. It is in deep sleep
    then, and the next request wakes it with its files as of the last checkpoint or deep sleep. What changed since is
    given up for good. If nothing is lost, the response is 409 with the reason `not_lost`, and nothing changes. This
    does not wake the session and does not count as activity.
    """
    answer = call.answer
    recovered = await call.operations.sessions.recover(
        call.caller,
        session_id(call.path["sessionId"]),
        answer and (lambda recovered: answer(encode(_recovered(recovered)))),
    )
    return _recovered(recovered)


OPERATIONS = (
    create_session,
    list_sessions,
    get_session,
    patch_session,
    delete_session,
    sleep_session,
    wake_session,
    recover_session,
)


def _recovered(recovered: Recovered) -> wire.Recovered:
    return wire.Recovered(
        session_id=recovered.session.id,
        state="deep-sleep",
        recovered_from=iso(recovered.taken_at),
        age_seconds=recovered.age,
    )
