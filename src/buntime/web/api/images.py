"""Images: what a session can stand on."""

from msgspec import UNSET

from buntime import errors, requests
from buntime.image import NamedImage
from buntime.scope import Scope
from buntime.web.api.ids import session_id, snapshot_id
from buntime.web.operation import Call, operation
from buntime.web.wire import images as wire
from buntime.web.wire.shapes import NoQuery, encode, iso


@operation(
    "POST",
    "/images/create",
    Scope.ACCOUNT_WRITE,
    tag="Images",
    body=wire.CreateImage,
    answer=wire.Image,
    errors=(errors.SessionNotFound, errors.SnapshotNotFound, errors.ResourceLimitExceeded, errors.InvalidState),
    idempotent=True,
    settles=True,
)
async def create_image(call: Call[NoQuery, wire.CreateImage]) -> wire.Image:
    """Make an image of a session's or a snapshot's files.

    Sessions that are created on it start with these files, without a copy of their own, and share their pages in
    memory. They have the variables of `env` in each run. The image stays when the session or the snapshot is gone.
    """
    body, answer = call.body, call.answer
    new = requests.NewImage(
        name=body.name,
        session=None if body.session_id is UNSET else session_id(body.session_id),
        snapshot=None if body.snapshot_id is UNSET else snapshot_id(body.snapshot_id),
        env=body.env or {},
    )
    made = await call.operations.images.create(call.caller, new, answer and (lambda made: answer(encode(_shown(made)))))
    return _shown(made)


@operation("GET", "/images", Scope.ACCOUNT_READ, tag="Images", query=wire.ImagesQuery, answer=wire.Images)
async def list_images(call: Call[wire.ImagesQuery, None]) -> wire.Images:
    """List the images that the account can use, sorted by name.

    `default`, the server's own image, is not listed.
    """
    found, total = await call.operations.images.list(call.caller, call.query.limit, call.query.offset)
    return wire.Images(images=[_shown(image) for image in found], total=total)


@operation(
    "DELETE",
    "/images/{name}",
    Scope.ACCOUNT_WRITE,
    tag="Images",
    answer=wire.DeletedImage,
    errors=(errors.ImageNotFound, errors.Forbidden),
)
async def delete_image(call: Call[NoQuery, None]) -> wire.DeletedImage:
    """Delete an image of the account.

    Sessions on it live on. An image that the operator has added cannot be deleted this way (403).
    """
    name = call.path["name"]
    await call.operations.images.delete(call.caller, name)
    return wire.DeletedImage(deleted=True, name=name)


OPERATIONS = (create_image, list_images, delete_image)


def _shown(image: NamedImage) -> wire.Image:
    return wire.Image(image_id=image.id, name=image.name, size_bytes=image.size, created_at=iso(image.created_at))
