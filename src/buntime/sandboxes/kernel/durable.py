"""Files that survive a power loss."""

import os
from pathlib import Path


def write_durably(file: Path, text: str) -> None:
    """Replaces the file's content: all of it or nothing."""
    fresh = file.with_suffix(".new")
    with fresh.open("w") as content:
        content.write(text)
        content.flush()
        os.fsync(content.fileno())
    fresh.rename(file)
    sync(file.parent)


def sync(path: Path) -> None:
    """When this returns, the file's content, or the directory's names, are on disk."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
