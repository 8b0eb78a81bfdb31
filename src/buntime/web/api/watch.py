"""Watching files."""

from msgspec import UNSET, Struct

from buntime import errors
from buntime.inside import FileEvent
from buntime.paths import inside_session, shown
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
    async with call.plane.files.watch(call.caller, wanted, path, recursive=query.recursive) as events:
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

    A stream of Server-Sent Events: `ready` when it is watched, then a `change` for each that is made, and comments
    every 15 seconds of silence. Changes of one file within some 25 ms are told as one. `overflow` says that there were
    more than could be told, so the client has to look for itself; what follows it is whole again. The stream goes on
    while the session is suspended, does not keep it awake, and ends with an `error` where what is watched is gone, in
    deep sleep and at the session's end.
    """


OPERATIONS: tuple[Operation, ...] = (watch_files,)
