"""The digest of a directory tree that a session made.

It counts names, kinds, permissions, owners, contents, links, extended attributes and device numbers, but no times. The
tree is hostile, and nothing may change it meanwhile. It is walked by descriptors: no link is followed, only files and
directories are opened, and no path is too long. A process of its own walks it, which bounds the memory.
"""

import errno
import hashlib
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from buntime.plan import MB
from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.kernel.transfer import ENDS_WITH_SERVER, GENTLY

# Of the process: a million names take it 200 MB.
MEMORY = 2048 * MB
CPU_SECONDS, SLOWEST = 60, 16 * MB  # and another second for so many bytes that the files take on the disk
BLOCK = 64 << 10  # bytes; of a file, those without any content do not count, and neither does how they are stored
NOTHING = bytes(BLOCK)
# What overlayfs notes of the layer below for itself: it differs between hosts and changes nothing that a session sees.
NOTES = {f"trusted.overlay.{name}" for name in ("origin", "impure", "uuid")}
STORING = "btrfs."  # prefix of attributes that say how a file is stored
PATH_ONLY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Undigestible(ValueError):
    """The tree has too many names, or too much content for what it takes on the disk. The message says which."""


def digest_of(directory: Path, size: int) -> str:
    """64 hex digits. `size`: bytes that the files take on the disk. Blocking. Raises HostCommandFailed, and
    Undigestible."""
    seconds = CPU_SECONDS + size // SLOWEST
    limits = ["prlimit", f"--as={MEMORY}", f"--cpu={seconds}:{seconds + 5}", "--core=0"]
    command = [*ENDS_WITH_SERVER, *GENTLY, *limits, sys.executable, "-I", "-m", __name__, str(directory)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode == -signal.SIGXCPU:
        raise Undigestible(f"to read them takes more than {seconds} seconds")
    if "MemoryError" in done.stderr:
        raise Undigestible("they have too many names")
    if done.returncode:
        raise HostCommandFailed(f"digest of {directory}: exit {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout.strip()


def digest(directory: Path) -> str:
    """The same in this process. Raises OSError."""
    whole = hashlib.sha256()
    for fields in _Walk(directory).entries():
        whole.update(len(fields).to_bytes(8))
        whole.update(b"".join(len(each).to_bytes(8) + each for each in fields))
    return whole.hexdigest()


@dataclass(slots=True)
class _Level:
    """A directory on the way to where the walk is."""

    inode: int
    names: list[bytes] = field(default_factory=list)  # not walked yet, the last one first


class _Walk:
    """Each entry is a list of fields. The entries of a directory follow it, sorted; then comes an empty list."""

    def __init__(self, directory: Path) -> None:
        self._here = os.open(directory, DIRECTORY & ~os.O_NOFOLLOW)  # its name is the host's
        self._levels: list[_Level] = []
        self._links: dict[int, int] = {}  # inode of a file with several names → which of these files it is

    def entries(self) -> Iterator[list[bytes]]:
        try:
            yield self._described(b"", self._here, os.fstat(self._here))
            self._begin()
            while self._levels:
                if self._levels[-1].names:
                    yield self._next(self._levels[-1].names.pop())
                else:
                    self._go_up()
                    yield []
        finally:
            os.close(self._here)

    def _begin(self) -> None:
        with os.scandir(self._here) as found:
            names = sorted((os.fsencode(entry.name) for entry in found), reverse=True)
        self._levels.append(_Level(os.fstat(self._here).st_ino, names))

    def _next(self, name: bytes) -> list[bytes]:
        place = os.open(name, PATH_ONLY, dir_fd=self._here)
        try:
            status = os.fstat(place)
            fields = self._described(name, place, status)
        finally:
            os.close(place)
        if stat.S_ISDIR(status.st_mode):
            below = os.open(name, DIRECTORY, dir_fd=self._here)
            os.close(self._here)
            self._here = below
            self._begin()
        return fields

    def _go_up(self) -> None:
        """By `..` and not by a descriptor for each directory, of which there may be too many."""
        self._levels.pop()
        if self._levels:
            above = os.open("..", DIRECTORY, dir_fd=self._here)
            os.close(self._here)
            self._here = above
            if os.fstat(above).st_ino != self._levels[-1].inode:
                raise OSError("the tree has changed")

    def _described(self, name: bytes, place: int, status: os.stat_result) -> list[bytes]:
        kind = stat.S_IFMT(status.st_mode)
        fields = [name, f"{status.st_mode} {status.st_uid} {status.st_gid}".encode()]
        if kind == stat.S_IFLNK:
            fields.append(os.fsencode(os.readlink(b"", dir_fd=place)))
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            fields.append(f"{os.major(status.st_rdev)} {os.minor(status.st_rdev)}".encode())
        # overlayfs makes one node for all names that are gone, and links them; it may link them to another one any time
        if kind not in (stat.S_IFDIR, stat.S_IFCHR) and status.st_nlink > 1:
            before = len(self._links)
            number = self._links.setdefault(status.st_ino, before)
            fields.append(f"link {number}".encode())
            if number < before:
                return fields  # the rest came with its first name
        if kind == stat.S_IFREG:
            fields.append(_content(place))
        return [*fields, *_attributes(place)]


def _content(place: int) -> bytes:
    """A digest of the size and of all blocks that are not empty. Holes are not read: a file may have exabytes."""
    handle = os.open(_path(place), os.O_RDONLY | os.O_CLOEXEC)
    try:
        whole = hashlib.sha256(os.fstat(handle).st_size.to_bytes(8))
        at = 0
        while (start := _next_data(handle, at)) is not None:
            at = start // BLOCK * BLOCK
            block = os.pread(handle, BLOCK, at)
            if block != NOTHING[: len(block)]:
                whole.update(at.to_bytes(8) + block)
            at += BLOCK
        return whole.digest()
    finally:
        os.close(handle)


def _next_data(file: int, start: int) -> int | None:
    try:
        return os.lseek(file, start, os.SEEK_DATA)
    except OSError as failed:
        if failed.errno in (errno.ENXIO, errno.EINVAL):  # there is none; EINVAL: nor can a file be longer
            return None
        raise


def _attributes(place: int) -> Iterator[bytes]:
    for name in sorted(os.listxattr(_path(place))):
        if name not in NOTES and not name.startswith(STORING):
            yield os.fsencode(name)
            yield os.getxattr(_path(place), name)


def _path(place: int) -> str:
    """What is open there, even if it is a link."""
    return f"/proc/self/fd/{place}"


if __name__ == "__main__":
    print(digest(Path(sys.argv[1])))
