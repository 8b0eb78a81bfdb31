"""Snapshots, and what is made of them: forks and restores."""

from msgspec import UNSET, UnsetType

from buntime import errors, requests, snapshot
from buntime.errors import SessionNotFound, SnapshotNotFound
from buntime.operations.forks import Forked
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
    decode_created,
    shown,
)
from buntime.web.failures import failure_of
from buntime.web.operation import Call, operation
from buntime.web.wire import sessions as wire_sessions
from buntime.web.wire import snapshots as wire
from buntime.web.wire.shapes import NoQuery, encode, given, iso

FORK_SECONDS = 60.0


@operation(
    "POST",
    "/sessions/{sessionId}/snapshots",
    Scope.SESSIONS_WRITE,
    tag="Snapshots",
    body=wire.CreateSnapshot,
    body_optional=True,
    answer=wire.Snapshot,
    errors=(SessionNotFound, errors.ResourceLimitExceeded, errors.InvalidState),
    idempotent=True,
    settles=True,
)
async def create_snapshot(call: Call[NoQuery, wire.CreateSnapshot]) -> wire.Snapshot:
    """Take a snapshot of a session's files.

    It works in any state, and does not wake the session. In a running session, programs go on meanwhile; the snapshot
    has everything that was written before the request. Processes and memory are not in it. A snapshot stays when its
    session is gone.
    """
    body = call.body
    check_depth(body.metadata)
    new = requests.NewSnapshot(given(body.name), body.metadata or {}, given(body.ttl))
    answer = call.answer
    made = await call.operations.snapshots.create(
        call.caller,
        session_id(call.path["sessionId"]),
        new,
        answer and (lambda made: answer(encode(_shown(made)))),
    )
    return _shown(made)


@operation(
    "GET",
    "/snapshots",
    Scope.SESSIONS_READ,
    tag="Snapshots",
    query=wire.SnapshotsQuery,
    answer=wire.Snapshots,
    errors=(SessionNotFound,),
)
async def list_snapshots(call: Call[wire.SnapshotsQuery, None]) -> wire.Snapshots:
    """List the account's snapshots, newest first.

    The session of `sessionId` may be gone. This includes the snapshots named `before-restore`, which each restore takes
    first. One of a session is kept, for 24 hours.
    """
    query = call.query
    session = None if query.session_id is UNSET else session_id(query.session_id)
    found, total = await call.operations.snapshots.list(
        call.caller, session=session, name=given(query.name), limit=query.limit, offset=query.offset
    )
    return wire.Snapshots(snapshots=[_shown(each) for each in found], total=total)


@operation(
    "GET",
    "/snapshots/{snapshotId}",
    Scope.SESSIONS_READ,
    tag="Snapshots",
    answer=wire.Snapshot,
    errors=(SnapshotNotFound,),
)
async def get_snapshot(call: Call[NoQuery, None]) -> wire.Snapshot:
    """Show a snapshot."""
    return _shown(await call.operations.snapshots.get(call.caller, snapshot_id(call.path["snapshotId"])))


@operation(
    "DELETE",
    "/snapshots/{snapshotId}",
    Scope.SESSIONS_WRITE,
    tag="Snapshots",
    answer=wire.DeletedSnapshot,
    errors=(SnapshotNotFound,),
)
async def delete_snapshot(call: Call[NoQuery, None]) -> wire.DeletedSnapshot:
    """Delete a snapshot.

    Sessions and images that were made of it live on.
    """
    wanted = snapshot_id(call.path["snapshotId"])
    await call.operations.snapshots.delete(call.caller, wanted)
    return wire.DeletedSnapshot(deleted=True, snapshot_id=wanted)


@operation(
    "POST",
    "/sessions/{sessionId}/fork",
    Scope.SESSIONS_WRITE,
    tag="Snapshots",
    body=wire.Fork,
    body_optional=True,
    answer=wire.Forks,
    errors=(SessionNotFound, errors.Forbidden, errors.SessionLimitExceeded, errors.NameTaken, errors.InvalidState),
    idempotent=True,
    settles=True,
    seconds=FORK_SECONDS,
)
async def fork_session(call: Call[NoQuery, wire.Fork]) -> wire.Forks:
    """Make sessions with the files of a session as they are now.

    Each new session has the source's limits, image, preview, network, onWake, env and sleepPolicy, unless the request
    has others. None has the source's name. The source goes on, and is not woken. Each fork succeeds or fails alone; if
    all fail, the response is the error of the first. A request that is repeated with its Idempotency-Key never makes
    more sessions.
    """
    body = call.body
    check_depth(body.metadata)
    preview, network = asked_preview(body.preview or None), asked_network(body.network or None)
    fork = requests.NewFork(
        count=body.count,
        ttl=asked_ttl(given(body.ttl)),
        metadata=body.metadata or {},
        limits=asked_limits(body.resource_limits),
        preview=preview or requests.UNSET,
        network=network or requests.UNSET,
        on_wake=requests.UNSET if isinstance(body.on_wake, UnsetType) else body.on_wake,
        env=requests.UNSET if isinstance(body.env, UnsetType) else body.env,
        sleep_policy=asked_policy(body.sleep_policy or None) or requests.UNSET,
        services=requests.UNSET if isinstance(body.services, UnsetType) else asked_services(body.services),
        name=given(body.name),
    )
    made = await call.operations.forks.create(
        call.caller,
        session_id(call.path["sessionId"]),
        fork,
        call.answer and call.answer(b""),
        lambda session: encode(created(session, call.config)),
    )
    return wire.Forks(sessions=[_fork_shown(each) for each in made])


@operation(
    "POST",
    "/sessions/{sessionId}/restore",
    Scope.SESSIONS_WRITE,
    tag="Snapshots",
    body=wire.Restore,
    answer=wire_sessions.Session,
    errors=(SessionNotFound, SnapshotNotFound, errors.SessionBusy, errors.DiskFull, errors.InvalidState),
    idempotent=True,
    settles=True,
)
async def restore_session(call: Call[NoQuery, wire.Restore]) -> wire_sessions.Session:
    """Put a session's files back to those of a snapshot.

    The session keeps its id, URLs, ttl and metadata; its processes end, and its image becomes the snapshot's. The
    snapshot may be of another session of the account. While another request uses the session, the response is 409
    `session_busy`. First, a snapshot named `before-restore` is taken of the session and kept for 24 hours; it does not
    count for the plan.
    """
    answer = call.answer
    view = await call.operations.snapshots.restore(
        call.caller,
        session_id(call.path["sessionId"]),
        snapshot_id(call.body.snapshot_id),
        answer and (lambda view: answer(encode(shown(view, call.config)))),
    )
    return shown(view, call.config)


OPERATIONS = (
    create_snapshot,
    list_snapshots,
    get_snapshot,
    delete_snapshot,
    fork_session,
    restore_session,
)


def _shown(made: snapshot.Snapshot) -> wire.Snapshot:
    return wire.Snapshot(
        snapshot_id=made.id,
        session_id=made.session,
        name=made.name,
        metadata=dict(made.metadata),
        image=made.image_name,
        size_bytes=made.size,
        created_at=iso(made.created_at),
        expires_at=None if made.expires_at is None else iso(made.expires_at),
    )


def _fork_shown(made: Forked) -> wire.Forked:
    if isinstance(made, errors.BuntimeError):
        return wire.Forked(session=UNSET, error=failure_of(made))
    return wire.Forked(session=decode_created(made))
