"""The JSON shapes of watching."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType, field

from buntime.web.wire.fields import Path, SessionId
from buntime.web.wire.shapes import Request, Response


class WatchQuery(Request):
    session_id: SessionId
    path: Path = "."
    recursive: Annotated[
        bool, Meta(description="`true`: everything below too, but for what is in `node_modules` and `.git`.")
    ] = False


class Ready(Response):
    """What happens from now on is told."""


class Change(Response):
    event: Literal["created", "changed", "deleted", "renamed"]
    path: Annotated[str, Meta(description="As in `GET /files/list`; the new one of `renamed`.")]
    type: Annotated[
        Literal["file", "directory", "symlink", "other"], Meta(description="Left out where nothing is there any more.")
    ] | (UnsetType) = UNSET
    from_: Annotated[str, Meta(description="The old path, of `renamed`.")] | UnsetType = field(
        name="from", default=UNSET
    )
    path_base64: Annotated[str, Meta(description="The path's bytes, where they are not UTF-8.")] | UnsetType = UNSET
    from_base64: Annotated[str, Meta(description="The old path's bytes, where they are not UTF-8.")] | UnsetType = UNSET


class Overflow(Response):
    reason: Annotated[
        Literal["lost", "unwatched"],
        Meta(description="`lost`: events were lost. `unwatched`: this and other directories are too many to watch."),
    ]
    path: Annotated[str, Meta(description="Below which to look for yourself.")]
