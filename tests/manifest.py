"""Lists all entries of a directory tree, so that a test can compare two trees. The tree must not change."""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

BLOCK = 4096
NOTHING = bytes(BLOCK)


@dataclass(frozen=True, slots=True)
class Entry:
    mode: int  # type and permissions
    uid: int
    gid: int
    mtime_ns: int
    device: int
    xattrs: tuple[tuple[str, bytes], ...]
    first_name: bytes | None = None  # the first path of a file that has several hard links
    target: bytes | None = None  # of a symbolic link
    size: int | None = None  # of a file
    digest: str | None = None  # of a file's blocks that are not all zero; ignores holes


def manifest(root: Path) -> dict[bytes, Entry]:
    """Returns all entries by path below `root`. Supports any depth, any name, and sparse files larger than the disk."""
    first_names: dict[int, bytes] = {}
    return {path: _entry(parent, name, path, first_names) for parent, name, path in _walk(root)}


def differences(one: dict[bytes, Entry], other: dict[bytes, Entry]) -> list[str]:
    """Returns one line per difference; empty if the trees are equal."""
    return [f"{path!r}: {one.get(path)} {other.get(path)}" for path in one | other if one.get(path) != other.get(path)]


def _walk(root: Path) -> Iterator[tuple[int, bytes, bytes]]:
    """Yields each entry's parent (an open handle), name and path, parents first. Keeps one directory open at a time."""
    here = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield here, b".", b"."
        above: list[Iterator[bytes]] = []
        names, path = iter(_names(here)), b""
        while True:
            name = next(names, None)
            if name is not None:
                yield here, name, path + name
                if _is_directory(here, name):
                    above.append(names)
                    here, path = _moved(here, name), path + name + b"/"
                    names = iter(_names(here))
            elif above:
                here, path = _moved(here, b".."), path[: path[:-1].rfind(b"/") + 1]
                names = above.pop()
            else:
                return
    finally:
        os.close(here)


def _names(directory: int) -> list[bytes]:
    return sorted(os.fsencode(name) for name in os.listdir(directory))


def _is_directory(parent: int, name: bytes) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)


def _moved(here: int, name: bytes) -> int:
    there = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
    os.close(here)
    return there


def _entry(parent: int, name: bytes, path: bytes, first_names: dict[int, bytes]) -> Entry:
    found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    by_handle = b"/proc/self/fd/%d/%s" % (parent, name)
    xattrs = tuple(
        (key, os.getxattr(by_handle, key, follow_symlinks=False))
        for key in sorted(os.listxattr(by_handle, follow_symlinks=False))
    )
    several = found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode)
    first_name = first_names.setdefault(found.st_ino, path) if several else None
    entry = (found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns, found.st_rdev, xattrs, first_name)
    if stat.S_ISLNK(found.st_mode):
        return Entry(*entry, target=os.readlink(name, dir_fd=parent))
    if stat.S_ISREG(found.st_mode):
        digest = _digest(parent, name) if first_name in (None, path) else None
        return Entry(*entry, size=found.st_size, digest=digest)
    return Entry(*entry)


def _digest(parent: int, name: bytes) -> str:
    digest = hashlib.sha256()
    with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=parent), "rb", buffering=0) as file:
        for start, end in _written(file.fileno()):
            for offset in range(start - start % BLOCK, end, BLOCK):
                block = os.pread(file.fileno(), BLOCK, offset)
                if block != NOTHING[: len(block)]:
                    digest.update(b"%d:%s" % (offset, block))
    return digest.hexdigest()


def _written(file: int) -> Iterator[tuple[int, int]]:
    end = 0
    while True:
        try:
            start = os.lseek(file, end, os.SEEK_DATA)
        except OSError:  # ENXIO: only a hole is left
            return
        end = os.lseek(file, start, os.SEEK_HOLE)
        yield start, end
