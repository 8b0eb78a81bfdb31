"""Sessions: create, show, list, change, delete, sleep, wake."""

from collections.abc import Mapping

from msgspec import UNSET, UnsetType

from buntime import errors, requests, session
from buntime.config import Config
from buntime.errors import InvalidRequest, SessionNotFound
from buntime.image import DEFAULT_IMAGE
from buntime.operations.sessions import SessionView
from buntime.preview import preview_url
from buntime.web.api.ids import session_id
from buntime.web.operation import Call, operation
from buntime.web.wire import sessions as wire
from buntime.web.wire.shapes import NoQuery, encode, given, iso, number

DEEPEST_METADATA = 64  # levels


@operation(
    "POST",
    "/sessions/create",
    tag="Sessions",
    body=wire.CreateSession,
    body_optional=True,
    answer=wire.Created,
    errors=(errors.ImageNotFound, errors.SessionLimitExceeded),
    idempotent=True,
    settles=True,
)
async def create_session(call: Call[NoQuery, wire.CreateSession]) -> wire.Created:
    """Create a session.

    When the response arrives, the session is stored durably and its runtime is ready. An empty body, of any content
    type, means the defaults.
    """
    body = call.body
    _check_depth(body.metadata)
    new = requests.NewSession(
        ttl=given(body.ttl),
        metadata=body.metadata or {},
        limits=_limits(body.resource_limits),
        preview=_preview(body.preview or None) or session.DEFAULT_PREVIEW,
        network=_network(body.network or None) or session.DEFAULT_NETWORK,
        on_wake=given(body.on_wake),
        env=body.env or {},
        image=DEFAULT_IMAGE if body.image is UNSET else body.image,
    )
    answer = call.answer
    made = await call.operations.sessions.create(
        call.caller, new, answer and (lambda made: answer(encode(_created(made, call.config))))
    )
    return _created(made, call.config)


@operation("GET", "/sessions", tag="Sessions", query=wire.SessionsQuery, filters=True, answer=wire.Sessions)
async def list_sessions(call: Call[wire.SessionsQuery, None]) -> wire.Sessions:
    """List the account's sessions, newest first.

    Besides the parameters below, `metadata.KEY=VALUE` selects the sessions whose metadata has that value under that
    top-level key. Numbers and booleans match their JSON text. Listing does not wake a session.
    """
    query = call.query
    views, total = await call.operations.sessions.list(
        call.caller,
        state=session.State(query.state) if query.state else None,
        metadata=call.filters,
        limit=query.limit,
        offset=query.offset,
    )
    return wire.Sessions(sessions=[_shown(view, call.config) for view in views], total=total)


@operation("GET", "/sessions/{sessionId}", tag="Sessions", answer=wire.Session, errors=(SessionNotFound,))
async def get_session(call: Call[NoQuery, None]) -> wire.Session:
    """Show a session.

    This does not wake the session and does not count as activity.
    """
    view = await call.operations.sessions.get(call.caller, session_id(call.path["sessionId"]))
    return _shown(view, call.config)


@operation(
    "PATCH",
    "/sessions/{sessionId}",
    tag="Sessions",
    body=wire.PatchSession,
    answer=wire.Session,
    errors=(SessionNotFound,),
)
async def patch_session(call: Call[NoQuery, wire.PatchSession]) -> wire.Session:
    """Change a session.

    Each field replaces the whole old value, and null restores the default. `ttl` counts from now. This does not wake
    the session and does not count as activity.
    """
    body, unset = call.body, requests.UNSET
    _check_depth(body.metadata)
    patch = requests.Patch(
        ttl=unset if body.ttl is UNSET else body.ttl,
        metadata=unset if body.metadata is UNSET else body.metadata,
        preview=unset if body.preview is UNSET else _preview(body.preview),
        network=unset if body.network is UNSET else _network(body.network),
        on_wake=unset if body.on_wake is UNSET else body.on_wake,
        env=unset if body.env is UNSET else body.env,
    )
    view = await call.operations.sessions.patch(call.caller, session_id(call.path["sessionId"]), patch)
    return _shown(view, call.config)


@operation("DELETE", "/sessions/{sessionId}", tag="Sessions", answer=wire.Deleted, errors=(SessionNotFound,))
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
    return _shown(view, call.config)


@operation(
    "POST",
    "/sessions/{sessionId}/wake",
    tag="Sessions",
    answer=wire.Woken,
    errors=(SessionNotFound,),
)
async def wake_session(call: Call[NoQuery, None]) -> wire.Woken:
    """Wake a session.

    A session that is awake stays as it is.
    """
    woken = await call.operations.sessions.wake(call.caller, session_id(call.path["sessionId"]))
    shown = _shown(woken.view, call.config)
    fields = {name: getattr(shown, name) for name in shown.__struct_fields__}
    return wire.Woken(**fields, woke_from=woken.woke_from.value, wake_time_ms=woken.milliseconds)  # type: ignore[arg-type]


OPERATIONS = (
    create_session,
    list_sessions,
    get_session,
    patch_session,
    delete_session,
    sleep_session,
    wake_session,
)


def _limits(asked: wire.ResourceLimitsRequest | UnsetType) -> Mapping[str, float] | None:
    if isinstance(asked, UnsetType):
        return None
    given = {name: getattr(asked, name) for name in asked.__struct_fields__}
    return {name: value for name, value in given.items() if value is not UNSET}


def _preview(asked: wire.PreviewRequest | UnsetType | None) -> session.Preview | None:
    return session.Preview(asked.visibility, tuple(asked.ports)) if asked else None


def _network(asked: wire.NetworkRequest | UnsetType | None) -> session.Network | None:
    return session.Network(asked.egress, tuple(asked.allow), tuple(asked.deny)) if asked else None


def _check_depth(metadata: Mapping[str, object] | UnsetType | None) -> None:
    """Raises InvalidRequest for metadata so deep that another JSON reader could fail on it."""
    level: list[object] = [metadata] if metadata else []
    for _ in range(DEEPEST_METADATA):
        if not level:
            return
        inside: list[object] = []
        for value in level:
            if isinstance(value, Mapping):
                inside.extend(value.values())
            elif isinstance(value, list):
                inside.extend(value)
        level = inside
    if any(isinstance(value, Mapping | list) for value in level):
        raise InvalidRequest(
            "metadata", f"metadata may have at most {DEEPEST_METADATA} levels.", limit=DEEPEST_METADATA
        )


def _resource_limits(made: session.Session) -> wire.ResourceLimits:
    limits = made.limits
    return wire.ResourceLimits(memory=limits.memory, cpu=number(limits.cpu), timeout=limits.timeout, disk=limits.disk)


def _created(made: session.Session, config: Config) -> wire.Created:
    return wire.Created(
        session_id=made.id,
        expires_at=iso(made.expires_at),
        preview_url=preview_url(made.id, config),
        created_at=iso(made.created_at),
        resource_limits=_resource_limits(made),
    )


def _shown(view: SessionView, config: Config) -> wire.Session:
    made = view.session
    return wire.Session(
        session_id=made.id,
        created_at=iso(made.created_at),
        expires_at=iso(made.expires_at),
        last_active=iso(made.last_active),
        state=made.state.value,  # type: ignore[arg-type]  # DELETING sessions are never shown
        files_count=view.observed.files,
        active_processes=view.observed.processes,
        metadata=dict(made.metadata),
        preview_url=preview_url(made.id, config),
        resource_limits=_resource_limits(made),
        preview=wire.Preview(visibility=made.preview.visibility, ports=list(made.preview.ports)),  # type: ignore[arg-type]
        network=wire.Network(
            egress=made.network.egress,  # type: ignore[arg-type]
            allow=list(made.network.allow),
            deny=list(made.network.deny),
        ),
        on_wake=made.on_wake,
        env_names=sorted(made.env),
        image=made.image_name,
    )
