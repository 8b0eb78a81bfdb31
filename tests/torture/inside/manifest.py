"""Runs in a session: prints its file system as a JSON object that maps each path to its visible properties.

Omits mounts that are not the session's own (`/proc`, `/dev`, `/run`, `/sys`, `/etc/resolv.conf`) and the paths that you
name on the command line. For speed, also omits the contents of large image directories that `tree.py` never changes.
Does not compare access and change times, inode numbers, sizes of directories, or the layout of a file's blocks.
"""
# names may be any bytes, which pathlib does not support
# ruff: noqa: PTH115, PTH118, PTH208

import hashlib
import json
import os
import stat
import sys

NOT_OURS = {b"/proc", b"/dev", b"/run", b"/sys", b"/etc/resolv.conf"}
LARGE = {b"/usr/lib", b"/usr/share", b"/usr/bin", b"/usr/include", b"/usr/libexec"}
TOUCHED = {b"/usr/share/doc"}  # inside the above; `tree.py` changes it
SPARSE_FROM = 1 << 20  # bytes; smaller files need not be sparse
PIECE = 1 << 16


def entries(left_out: set[bytes]) -> dict[str, list[object]]:
    found: dict[str, list[object]] = {}
    links: dict[tuple[int, int], str] = {}
    waiting = [b"/", *TOUCHED]
    while waiting:
        directory = waiting.pop()
        for path in sorted(os.path.join(directory, name) for name in os.listdir(directory)):
            if path in NOT_OURS or path in left_out:
                continue
            info = os.lstat(path)
            shown = path.decode("latin-1")
            found[shown] = _looks(path, info)
            if stat.S_ISDIR(info.st_mode) and path not in LARGE:
                waiting.append(path)
            elif info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode):
                found[shown].append("link of " + links.setdefault((info.st_dev, info.st_ino), shown))
    found["/"] = _looks(b"/", os.lstat(b"/"))
    return found


def _looks(path: bytes, info: os.stat_result) -> list[object]:
    looks: list[object] = [stat.filemode(info.st_mode), info.st_uid, info.st_gid, info.st_mtime_ns]
    looks.append({n: os.getxattr(path, n, follow_symlinks=False).hex() for n in _xattrs(path)})
    if stat.S_ISLNK(info.st_mode):
        looks.append(os.readlink(path).decode("latin-1"))
    elif stat.S_ISREG(info.st_mode):
        looks += [info.st_size, _digest(path, info.st_size)]
        if info.st_size >= SPARSE_FROM:
            looks.append("sparse" if info.st_blocks * 512 < info.st_size // 2 else "whole")
    return looks


def _xattrs(path: bytes) -> list[str]:
    return sorted(os.listxattr(path, follow_symlinks=False))


def _digest(path: bytes, size: int) -> str:
    """Hashes the pieces that are not all zero, and their offsets. Skips holes, which do not change the hash."""
    digest, at = hashlib.sha256(), 0
    with open(path, "rb", buffering=0) as file:
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break  # only a hole is left
            at -= at % PIECE
            piece = os.pread(file.fileno(), PIECE, at)
            if piece.strip(b"\0"):
                digest.update(b"%d:" % at + piece)
            at += PIECE
    return digest.hexdigest()[:32]


if __name__ == "__main__":
    json.dump(entries({os.fsencode(path) for path in sys.argv[1:]}), sys.stdout)
