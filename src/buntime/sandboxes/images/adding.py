"""From a source to an image that sessions can stand on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from buntime.daemon.steps import reached
from buntime.sandboxes.images.cleaning import clean, digest, size_of
from buntime.sandboxes.images.furnishing import furnish
from buntime.sandboxes.images.refused import Budget
from buntime.sandboxes.images.shelf import Shelf
from buntime.sandboxes.images.sources import Say, take
from buntime.sandboxes.kernel.image import Image


@dataclass(frozen=True, slots=True)
class Added:
    id: str  # root- + 32 hex digits: names the content
    size: int  # bytes of the source's files


def add_image(
    shelf: Shelf,
    source: str,
    host: Image,
    extra_cas: Sequence[str],
    limit: int,
    say: Say,
    keep: Callable[[Added], None],
) -> Added:
    """Adds the source's root file system, which may have `limit` bytes. Blocking.

    `host`: the image of this host. `keep`: stores that the image is used; until then nothing names it, and if it
    raises, nothing will. Raises ImageRefused and OSError, and what `keep` raises.
    """
    with shelf.locked(say), shelf.work() as work:
        env = take(source, work, Budget(limit), say)
        reached("image: taken")
        root = work / "root"
        clean(root, Budget(limit))
        size = size_of(root)
        furnish(root, host, extra_cas)
        reached("image: furnished")
        added = Added(shelf.put(root, digest(root, env), env), size)
        keep(added)
        reached("image: named")
        return added
