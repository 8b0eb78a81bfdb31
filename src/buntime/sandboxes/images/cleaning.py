"""Takes out of a root file system what a session must not get, and names it by what is left."""

import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from buntime.sandboxes.images.refused import Budget, ImageRefused
from buntime.sandboxes.images.unpacking import LARGEST_ID, PERMISSIONS

WHITEOUT = ".wh."  # prefix of the files by which a layer deletes; it has no meaning in a whole root
KEPT_ATTRIBUTES = "user."  # of extended attributes. Others, such as trusted.overlay.redirect, steer the overlay
ID_LENGTH = 32  # hex digits


def clean(root: Path, budget: Budget) -> None:
    """Removes devices, sockets and whiteouts; strips extended attributes and set-user-id bits; gives owners that a
    session cannot have to root. Counts what is left. Raises ImageRefused."""
    for path, status in _walk(root):
        kind = stat.S_IFMT(status.st_mode)
        if kind in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK) or (
            path.name.startswith(WHITEOUT) and kind != stat.S_IFDIR
        ):
            path.unlink()
            continue
        budget.entry(status.st_size if kind == stat.S_IFREG and status.st_nlink == 1 else 0)
        _strip(path)
        if max(status.st_uid, status.st_gid) > LARGEST_ID:
            owner, group = (number if number <= LARGEST_ID else 0 for number in (status.st_uid, status.st_gid))
            os.chown(path, owner, group, follow_symlinks=False)
        if kind != stat.S_IFLNK and stat.S_IMODE(status.st_mode) & ~PERMISSIONS:
            path.chmod(stat.S_IMODE(status.st_mode) & PERMISSIONS)


def _strip(path: Path) -> None:
    for name in os.listxattr(path, follow_symlinks=False):
        if not name.startswith(KEPT_ATTRIBUTES):
            os.removexattr(path, name, follow_symlinks=False)


def digest(root: Path, env: Mapping[str, str]) -> str:
    """Of all names, types, permissions, owners, contents and attributes, and of the environment. Times do not count,
    nor which names are links of one file."""
    whole = hashlib.sha256(json.dumps(env, sort_keys=True).encode())
    for path, status in _walk(root):
        kind = stat.S_IFMT(status.st_mode)
        fields = [os.fsencode(path.relative_to(root)), f"{status.st_mode} {status.st_uid} {status.st_gid}".encode()]
        if kind == stat.S_IFLNK:
            fields.append(os.fsencode(path.readlink()))
        elif kind == stat.S_IFREG:
            with path.open("rb") as file:
                fields.append(hashlib.file_digest(file, "sha256").digest())
        for name in sorted(os.listxattr(path, follow_symlinks=False)):
            fields += [os.fsencode(name), os.getxattr(path, name, follow_symlinks=False)]
        whole.update(b"".join(len(field).to_bytes(8) + field for field in fields))
        whole.update(b"\0" * 8)  # the end of an entry: no field is a name of length 0
    return whole.hexdigest()[:ID_LENGTH]


def size_of(root: Path) -> int:
    """Bytes of all files; one with several names counts once."""
    seen, total = set[int](), 0
    for _, status in _walk(root):
        if stat.S_ISREG(status.st_mode) and status.st_ino not in seen:
            seen.add(status.st_ino)
            total += status.st_size
    return total


def _walk(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The root and everything below, sorted. Never follows a link. Raises ImageRefused."""
    pending = [root]
    while pending:
        path = pending.pop()
        try:
            status = path.lstat()
        except OSError as failed:
            raise ImageRefused(f"{path} cannot be read: {failed.strerror}.") from failed
        yield path, status
        if stat.S_ISDIR(status.st_mode):
            pending += sorted(path.iterdir(), reverse=True)
