"""Paths in a root file system that may have any links: found as a process sees them whose root it is."""

import stat
from pathlib import Path

from buntime.sandboxes.images.refused import ImageRefused

MOST_LINKS = 40  # as in the kernel


def within(root: Path, path: str) -> Path:
    """The real place of the path; its parents are made if they are missing. Raises ImageRefused."""
    pending, place, links = path.split("/")[::-1], root, 0
    while pending:
        name = pending.pop()
        if name in ("", "."):
            continue
        if name == "..":
            place = place if place == root else place.parent
            continue
        step = place / name
        try:
            mode = step.lstat().st_mode
        except FileNotFoundError:
            if pending:
                step.mkdir(mode=0o755)
            place = step
            continue
        if stat.S_ISLNK(mode):
            links += 1
            if links > MOST_LINKS:
                raise ImageRefused(f"/{path} of the image has too many links.")
            target = str(step.readlink())
            place = root if target.startswith("/") else place
            pending += target.split("/")[::-1]
        elif pending and not stat.S_ISDIR(mode):
            raise ImageRefused(f"/{step.relative_to(root)} of the image is not a directory.")
        else:
            place = step
    return place
