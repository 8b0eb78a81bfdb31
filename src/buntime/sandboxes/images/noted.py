"""Images that this host needs, whatever the store says: its default image in a fleet, and those of running guests.

    DATA_DIR/default-image           the id of the image on which new sessions stand
    DATA_DIR/sandboxes/<id>/guest    the id of the image that has the guest's programs of a sandbox

Only ids of images that a prune could remove are noted.
"""

import os
from collections.abc import Set
from pathlib import Path

from buntime.config import Config
from buntime.sandboxes.images.shelf import ADDED
from buntime.sandboxes.kernel.cgroup_tree import text_of
from buntime.sandboxes.kernel.durable import write_durably
from buntime.sandboxes.kernel.image import Image, find_image

DEFAULT = "default-image"
GUEST = "guest"


def note_default(data_dir: Path, image: str) -> None:
    """No prune of this host removes the image from now on, also if it is not here yet. Gives up the one before."""
    write_durably(data_dir / DEFAULT, image + "\n")


def note_guest(directory: Path, image: str) -> None:
    """`directory`: of a sandbox, which is about to start. The note goes with it."""
    if ADDED.fullmatch(image):
        (directory / GUEST).write_text(image + "\n")


def needed(data_dir: Path) -> Set[str]:
    """Ids."""
    home = f"{data_dir}/sandboxes"  # pathlib takes ten times as long, and a host has thousands
    try:
        files = [f"{data_dir}/{DEFAULT}", *(f"{home}/{name}/{GUEST}" for name in os.listdir(home))]  # noqa: PTH208
    except FileNotFoundError:
        files = [f"{data_dir}/{DEFAULT}"]
    return {noted for file in files if ADDED.fullmatch(noted := _read(file))}


def noted_default(config: Config) -> Image | None:
    """The default image of this host in a fleet, if it has one."""
    noted = _read(config.data_dir / DEFAULT)
    return find_image(config.images, noted) if ADDED.fullmatch(noted) else None


def _read(file: Path | str) -> str:
    try:
        return text_of(str(file)).strip()
    except (FileNotFoundError, NotADirectoryError):  # of a sandbox, it may go at any moment
        return ""
