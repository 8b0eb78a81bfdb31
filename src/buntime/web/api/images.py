"""Images: what a session can stand on."""

from buntime import errors
from buntime.image import NamedImage
from buntime.web.operation import Call, operation
from buntime.web.wire import images as wire
from buntime.web.wire.shapes import NoQuery, iso


@operation("GET", "/images", tag="Images", query=wire.ImagesQuery, answer=wire.Images)
async def list_images(call: Call[wire.ImagesQuery, None]) -> wire.Images:
    """List the images that the account can use, sorted by name.

    `default`, the server's own image, is not listed.
    """
    found, total = await call.operations.images.list(call.caller, call.query.limit, call.query.offset)
    return wire.Images(images=[_shown(image) for image in found], total=total)


@operation(
    "DELETE",
    "/images/{name}",
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


OPERATIONS = (list_images, delete_image)


def _shown(image: NamedImage) -> wire.Image:
    return wire.Image(image_id=image.id, name=image.name, size_bytes=image.size, created_at=iso(image.created_at))
