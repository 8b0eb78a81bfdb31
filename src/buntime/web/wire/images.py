"""The JSON shapes of images."""

from typing import Annotated

from msgspec import Meta

from buntime.web.wire.fields import Limit, Offset, Time
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


class DeletedImage(Response):
    deleted: bool
    name: str
