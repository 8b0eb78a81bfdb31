"""The JSON shapes of images."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from buntime.web.wire.fields import Limit, Offset, Time
from buntime.web.wire.sessions import SessionEnv
from buntime.web.wire.shapes import Request, Response


class ImagesQuery(Request):
    limit: Limit = 50
    offset: Offset = 0


class Image(Response):
    image_id: Annotated[str, Meta(description="Names the content: the same content has the same id.")]
    name: Annotated[str, Meta(description="What `image` of `POST /sessions/create` takes.")]
    size_bytes: Annotated[int, Meta(description="Bytes of its files.")]
    created_at: Time


class Images(Response):
    images: list[Image]
    total: int


class CreateImage(Request):
    """Exactly one of `sessionId` and `snapshotId`."""

    name: Annotated[
        str,
        Meta(
            max_length=63,
            description="1 to 63 of a-z, 0-9, `.`, `_` and `-`, starting with a letter or digit; not `default`. A name "
            "of the account is given to the new image; sessions keep the image that they were created on.",
        ),
    ]
    session_id: Annotated[str, Meta(description="The image has the session's files as they are now.")] | UnsetType = (
        UNSET
    )
    snapshot_id: Annotated[str, Meta(description="The image has the snapshot's files.")] | UnsetType = UNSET
    env: SessionEnv | UnsetType = UNSET


class DeletedImage(Response):
    deleted: bool
    name: str
