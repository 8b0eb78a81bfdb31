"""An image is what a session stands on: a read-only root file system, by the name under which clients ask for it."""

import re
from dataclasses import dataclass

DEFAULT_IMAGE = "default"  # the name of the host's own image, which nobody can give to another
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
OPERATOR = ""  # in place of an account: every account can use these images
ADDED_PREFIX, MADE_PREFIX = "root-", "img_"  # of the ids of images that operators add, and that accounts make


@dataclass(frozen=True, slots=True)
class NamedImage:
    """A name for an image. A name can be given to another image; sessions keep the image that they were made on."""

    name: str
    id: str  # names the content
    size: int  # bytes
    created_at: int  # Unix seconds
    account: str = OPERATOR


def is_always_kept(image_id: str) -> bool:
    """The host's own images are. Those that operators add or accounts make go when nothing refers to them."""
    return not image_id.startswith((ADDED_PREFIX, MADE_PREFIX))


def wrong_name(name: str) -> str | None:
    """Why an image cannot have this name, if it cannot."""
    if name == DEFAULT_IMAGE:
        return f"{DEFAULT_IMAGE} is the name of the host's own image"
    if not NAME.fullmatch(name):
        return "an image's name has 1 to 63 characters of a-z, 0-9, ., _ and -, and starts with a letter or digit"
    return None
