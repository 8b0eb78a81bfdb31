"""Unpacks an archive of a root file system. What it names is not trusted: nothing is written outside of the root."""

import lzma
import os
import shutil
import stat
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import zstandard

from buntime.sandboxes.images.refused import Budget, ImageRefused

ZSTD = b"\x28\xb5\x2f\xfd"
LARGEST_ID = 65535  # a session maps user ids up to this one
PERMISSIONS = 0o1777  # set-user-id and set-group-id bits have no effect in a session


@contextmanager
def members(archive: Path) -> Iterator[tuple[tarfile.TarFile, Iterator[tarfile.TarInfo]]]:
    """The archive's entries in their order, whatever it is compressed with. Raises ImageRefused."""
    try:
        with archive.open("rb") as file, tarfile.open(fileobj=_plain(file), mode="r|*") as opened:
            yield opened, iter(opened)
    except (tarfile.TarError, zstandard.ZstdError, zlib.error, lzma.LZMAError, EOFError, OSError) as failed:
        raise ImageRefused(f"{archive} cannot be read as an archive: {failed}") from failed


def _plain(file: IO[bytes]) -> IO[bytes]:
    """Uncompressed if it was compressed by zstd, which this tarfile does not know."""
    begins = file.read(len(ZSTD))
    file.seek(0)
    return zstandard.ZstdDecompressor().stream_reader(file) if begins == ZSTD else file


def name_of(member: tarfile.TarInfo) -> str:
    """The entry's path below the root; "" for the root itself. Raises ImageRefused for a path that leaves the root."""
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise ImageRefused(f"The archive has an entry that leaves its root: {member.name!r}.")
    return "/".join(parts)


def unpack(archive: Path, root: Path, budget: Budget) -> None:
    """Unpacks the archive into the empty directory. Leaves out devices. Raises ImageRefused."""
    with members(archive) as (opened, entries):
        unpacking = _Unpacking(opened, root, budget)
        for member in entries:
            unpacking.take(member)
        unpacking.finish()


class _Unpacking:
    def __init__(self, archive: tarfile.TarFile, root: Path, budget: Budget) -> None:
        self._archive = archive
        self._root = root
        self._budget = budget
        self._directories: dict[str, tarfile.TarInfo | None] = {"": None}  # known not to be links

    def take(self, member: tarfile.TarInfo) -> None:
        name = name_of(member)
        self._budget.entry(member.size if member.isreg() else 0)
        if member.isdir():
            self._enter(name)
            self._directories[name] = member
        elif (name and not member.isdev()) or member.isfifo():
            self._enter(name.rpartition("/")[0])
            path = self._root / name
            self._clear(path)
            self._make(member, path)

    def finish(self) -> None:
        """Directories get their owner and times last, since what is made in them changes these."""
        for name, member in self._directories.items():
            if member is not None:
                _own(member, self._root / name)

    def _enter(self, name: str) -> None:
        """Makes the directory if it is missing. Raises ImageRefused if a link would be followed."""
        if name in self._directories:
            return
        self._enter(name.rpartition("/")[0])
        path = self._root / name
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            path.mkdir(mode=0o755)
        else:
            if not stat.S_ISDIR(mode):
                raise ImageRefused(f"The archive has entries below {name!r}, which is a link or a file in it.")
        self._directories[name] = None

    def _clear(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as failed:
            raise ImageRefused(f"The archive has {path.name!r} both as a directory and as something else.") from failed

    def _make(self, member: tarfile.TarInfo, path: Path) -> None:
        if member.issym():
            path.symlink_to(member.linkname)
        elif member.islnk():
            self._link(member, path)
            return
        elif member.isfifo():
            os.mkfifo(path)
        else:
            self._write(member, path)
        _own(member, path)

    def _link(self, member: tarfile.TarInfo, path: Path) -> None:
        target = tarfile.TarInfo(member.linkname)
        name = name_of(target)
        self._enter(name.rpartition("/")[0])
        try:
            os.link(self._root / name, path, follow_symlinks=False)
        except OSError as failed:
            raise ImageRefused(
                f"The archive links {member.name!r} to {member.linkname!r}: {failed.strerror}."
            ) from failed

    def _write(self, member: tarfile.TarInfo, path: Path) -> None:
        content = self._archive.extractfile(member)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as file:
            if content is not None:
                shutil.copyfileobj(content, file, 1 << 20)


def _own(member: tarfile.TarInfo, path: Path) -> None:
    os.chown(path, _id(member.uid), _id(member.gid), follow_symlinks=False)
    if not member.issym():
        path.chmod(member.mode & PERMISSIONS)
    times = int(max(member.mtime, 0) * 1e9)
    os.utime(path, ns=(times, times), follow_symlinks=False)


def _id(number: int) -> int:
    return number if 0 <= number <= LARGEST_ID else 0
