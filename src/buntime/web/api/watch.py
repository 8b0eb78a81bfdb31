"""Watching files."""

from msgspec import UNSET, Struct

from buntime import errors
from buntime.inside import FileEvent
from buntime.paths import inside_session, shown
from buntime.scope import Scope
from buntime.web.api.ids import session_id
from buntime.web.operation import Call, Operation, Streamed, operation
from buntime.web.streaming import Out
from buntime.web.wire.encoding import path_bytes
from buntime.web.wire.errors import Failure
from buntime.web.wire.watch import Change, Overflow, Ready, WatchQuery


async def _stream(call: Call[WatchQuery, None], out: Out) -> None:
    query = call.query
    path = inside_session(query.path, any_bytes=True)
    wanted = session_id(query.session_id)
    async with call.operations.files.watch(call.caller, wanted, path, recursive=query.recursive) as events:
        await out.begin_events()
        await out.event("ready", Ready())
        async for some in events:
            for event in some:
                await out.event("overflow" if event.kind == "overflow" else "change", _shape(event))


def _shape(event: FileEvent) -> Struct:
    if event.kind == "overflow":
        return Overflow(reason="unwatched" if event.unwatched else "lost", path=shown(event.path))
    before = event.from_path
    return Change(
        event=event.kind,
        path=shown(event.path),
        path_base64=path_bytes(event.path),
        from_=UNSET if before is None else shown(before),
        from_base64=UNSET if before is None else path_bytes(before),
        type=event.type or UNSET,
    )


@operation(
    "GET",
    "/files/watch",
    Scope.SESSIONS_WRITE,
    tag="Files",
    query=WatchQuery,
    any_bytes=True,
    errors=(
        errors.SessionNotFound,
        errors.FileNotFound,
        errors.FileConflict,
        errors.InvalidState,
        errors.ResourceLimitExceeded,
    ),
    streamed=Streamed(
        _stream,
        events={"ready": Ready, "change": Change, "overflow": Overflow, "error": Failure},
        endless=True,
    ),
)
async def watch_files(call: Call[WatchQuery, None]) -> None:
    """Watch a directory or a file.

    The response is a stream of Server-Sent Events: `ready` when the watch has started, a `change` for each change, and
    a comment after every 15 seconds of silence. Changes to one file within about 25 ms are reported as one. `overflow`
    means that some changes were not reported, so look at the files yourself; reporting is complete again after it. The
    stream continues while the session is suspended and does not keep it awake. It ends with an `error` when the watched
    path is gone, at deep sleep and at the end of the session.
    """


OPERATIONS: tuple[Operation, ...] = (watch_files,)
