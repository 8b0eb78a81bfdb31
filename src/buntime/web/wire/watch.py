"""The JSON shapes of watching files."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType, field

from buntime.web.wire.fields import Path, SessionId
from buntime.web.wire.shapes import Request, Response


class WatchQuery(Request):
    session_id: SessionId
    path: Path = "."
    recursive: Annotated[
        bool, Meta(description="`true`: watch everything below too, except the contents of `node_modules` and `.git`.")
    ] = False


class Ready(Response):
    """From now on every change is reported."""


class Change(Response):
    event: Literal["created", "changed", "deleted", "renamed"]
    path: Annotated[str, Meta(description="As in `GET /files/list`. For `renamed`, the new path.")]
    type: Annotated[
        Literal["file", "directory", "symlink", "other"],
        Meta(description="Absent if nothing exists at the path any more."),
    ] | (UnsetType) = UNSET
    from_: Annotated[str, Meta(description="The old path of a `renamed` event.")] | UnsetType = field(
        name="from", default=UNSET
    )
    path_base64: (
        Annotated[str, Meta(description="The path's bytes in base64. Present only if they are not UTF-8.")] | UnsetType
    ) = UNSET
    from_base64: (
        Annotated[str, Meta(description="The old path's bytes in base64. Present only if they are not UTF-8.")]
        | UnsetType
    ) = UNSET


class Overflow(Response):
    reason: Annotated[
        Literal["lost", "unwatched"],
        Meta(
            description="`lost`: events were lost. `unwatched`: the session has too many directories to watch them all."
        ),
    ]
    path: Annotated[str, Meta(description="Look for changes below this path yourself.")]
