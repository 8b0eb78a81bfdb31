"""Runs in a session: escapes.py WAY – takes disk space in one way until the kernel refuses more, and keeps it.

Writes the outcome to /run/outcome: the errno's name, or "never".
"""

import ctypes
import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

MB = 1 << 20
FICLONE, FICLONERANGE = 0x40049409, 0x4020940D
PUNCH, KEEP_SIZE, COLLAPSE, INSERT = 2, 1, 8, 32
LIBC = ctypes.CDLL(None, use_errno=True)
PLACE = Path("/root/escapes")
MOST = 400  # repetitions of one way: far more than fit into the quota
kept: list[int] = []  # open files


def noise(size: int) -> bytes:
    return os.urandom(size)


def new(number: int, flags: int = 0) -> int:
    kept.append(os.open(PLACE / f"f{number}", os.O_CREAT | os.O_RDWR | flags, 0o600))
    return kept[-1]


def write(file: int, megabytes: int = 10) -> None:
    for _ in range(megabytes):
        os.write(file, noise(MB))


def fallocate(file: int, mode: int, start: int, size: int) -> None:
    if LIBC.fallocate(file, mode, ctypes.c_long(start), ctypes.c_long(size)) < 0:
        raise OSError(ctypes.get_errno(), "fallocate")


def written(number: int) -> None:
    write(new(number))


def deleted_but_open(number: int) -> None:
    written(number)
    (PLACE / f"f{number}").unlink()


def temporary(number: int) -> None:
    kept.append(os.open(PLACE, os.O_TMPFILE | os.O_RDWR, 0o600))
    write(kept[-1])


def allocated(number: int) -> None:
    os.posix_fallocate(new(number), 0, 10 * MB)


def allocated_past_the_end(number: int) -> None:
    fallocate(new(number), KEEP_SIZE, 0, 10 * MB)


def punched(number: int) -> None:
    """Punches out all but a page of each extent. The disk frees only whole extents."""
    file = new(number)
    write(file)
    os.fsync(file)
    for start in range(0, 10 * MB, MB):
        fallocate(file, PUNCH | KEEP_SIZE, start + 4096, MB - 4096)


def cloned_then_changed(number: int) -> None:
    """Clones a file, which is free, and overwrites the clone, which is not."""
    base = PLACE / "base"
    if not base.exists():
        base.write_bytes(noise(10 * MB))
    source, file = os.open(base, os.O_RDONLY), new(number)
    fcntl.ioctl(file, FICLONE, source)
    os.close(source)
    os.lseek(file, 0, os.SEEK_SET)
    write(file)
    os.fsync(file)


def cloned_from_the_deleted(number: int) -> None:
    """Deletes a file whose clone keeps the content."""
    written(number)
    os.fsync(kept[-1])
    source, clone = kept[-1], os.open(PLACE / f"c{number}", os.O_CREAT | os.O_RDWR, 0o600)
    fcntl.ioctl(clone, FICLONE, source)
    (PLACE / f"f{number}").unlink()
    os.close(kept.pop())
    os.close(clone)


def renamed_over(number: int) -> None:
    """Keeps a file open whose name another file takes."""
    written(number)
    (PLACE / f"f{number}").rename(PLACE / "one")


def in_attributes(number: int) -> None:
    for part in range(250):
        path = PLACE / f"x{number}-{part}"
        path.touch()
        for name in range(4):
            os.setxattr(path, f"user.n{name}", noise(3500))


def in_long_links(number: int) -> None:
    for part in range(1000):
        (PLACE / f"l{number}-{part}").symlink_to("x" * 3900)


def past_the_cache(number: int) -> None:
    subprocess.run(
        ["dd", "if=/dev/urandom", f"of={PLACE}/d{number}", "bs=1M", "count=10", "oflag=direct", "status=none"],
        check=True, stderr=subprocess.DEVNULL,
    )  # fmt: skip


WAYS: dict[str, Callable[[int], None]] = {
    "written": written, "deleted but open": deleted_but_open, "without a name": temporary, "allocated": allocated,
    "allocated past the end": allocated_past_the_end, "punched": punched, "cloned, then changed": cloned_then_changed,
    "cloned from the deleted": cloned_from_the_deleted, "renamed over": renamed_over, "attributes": in_attributes,
    "long links": in_long_links, "past the cache": past_the_cache,
}  # fmt: skip


def attempt(way: Callable[[int], None]) -> str:
    PLACE.mkdir()
    try:
        for number in range(MOST):
            way(number)
    except OSError as refused:
        return errno.errorcode.get(refused.errno or 0, "?")
    except subprocess.CalledProcessError:
        return "EDQUOT"
    return "never"


if __name__ == "__main__":
    Path("/run/outcome").write_text(attempt(WAYS[sys.argv[1]]))
    sys.stdin.readline()  # keeps the files open while the test looks
