"""Copies a directory that has a root file system."""

import os
import shutil
import stat
from pathlib import Path

from buntime.sandboxes.images.refused import Budget, ImageRefused

MOUNTED_OVER = ("proc", "sys", "dev", "run")  # what is in them is not copied: a session has its own


def copy_tree(source: Path, root: Path, budget: Budget) -> None:
    """Copies into the empty directory, with owners, times and hard links. Leaves out devices, sockets and other mounts.

    Raises ImageRefused.
    """
    try:
        _Copying(source, budget).copy(source, root, MOUNTED_OVER)
    except OSError as failed:
        raise ImageRefused(f"{failed.filename or source} cannot be copied: {failed.strerror}.") from failed


class _Copying:
    def __init__(self, source: Path, budget: Budget) -> None:
        self._device = source.stat().st_dev
        self._budget = budget
        self._linked: dict[int, Path] = {}  # inode → its copy

    def copy(self, source: Path, to: Path, without: tuple[str, ...] = ()) -> None:
        """Copies what is in the directory, then the directory's own owner and times."""
        with os.scandir(source) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                self._budget.entry(status.st_size if stat.S_ISREG(status.st_mode) else 0)
                target = to / entry.name
                if stat.S_ISDIR(status.st_mode):
                    target.mkdir()
                    if entry.name in without or status.st_dev != self._device:
                        _own(status, target)
                    else:
                        self.copy(Path(entry.path), target)
                else:
                    self._copy_one(Path(entry.path), status, target)
        _own(source.stat(), to)

    def _copy_one(self, source: Path, status: os.stat_result, target: Path) -> None:
        if status.st_nlink > 1 and (first := self._linked.get(status.st_ino)):
            os.link(first, target, follow_symlinks=False)
            return
        if stat.S_ISLNK(status.st_mode):
            target.symlink_to(source.readlink())
        elif stat.S_ISFIFO(status.st_mode):
            os.mkfifo(target)
        elif stat.S_ISREG(status.st_mode):
            with (
                open(os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as content,
                target.open("xb") as file,
            ):
                shutil.copyfileobj(content, file, 1 << 20)
        else:
            return
        self._linked[status.st_ino] = target
        _own(status, target)


def _own(status: os.stat_result, path: Path) -> None:
    os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        path.chmod(stat.S_IMODE(status.st_mode))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)
