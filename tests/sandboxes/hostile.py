"""Directory trees with which a session could attack a program that copies them.

Each function fills an empty directory.
"""

import fcntl
import os
import random
import socket
import stat
import struct
from collections.abc import Callable
from pathlib import Path

MB = 1 << 20
FICLONE, FICLONERANGE = 0x40049409, 0x4020940D
FS_IOC_UNRESVSP = 0x4030582B
NAME_BYTES = bytes(byte for byte in range(1, 256) if byte != ord("/"))


def every_kind(tree: Path) -> None:
    """Every kind of file that a session may make, and overlayfs's marks of deleted files."""
    os.mkfifo(tree / "fifo")
    _bind_socket(tree)
    os.mknod(tree / "deleted", stat.S_IFCHR, 0)
    opaque = tree / "opaque"
    opaque.mkdir()
    os.setxattr(opaque, "trusted.overlay.opaque", b"y")
    for name, target in {"long": "t" * 4095, "out": "../../../../etc", "absolute": "/etc/passwd"}.items():
        (tree / name).symlink_to(target)
    for name, mode in {"setuid": 0o6755, "closed": 0}.items():
        _file(tree / name, b"x", (1000, 1001), mode)
    capable = _file(tree / "capable", b"x", (5, 5))
    os.setxattr(capable, "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    for name, time in {"before": -5_000_000_003, "after": 1 << 62, "between": 123_456_789}.items():
        os.utime(_file(tree / name), ns=(time, time))


def _bind_socket(tree: Path) -> None:
    directory = os.open(tree, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{directory}/socket")
    os.close(directory)


def directories_that_give_to_what_is_made_in_them(tree: Path) -> None:
    """Only later children inherit default ACLs and groups."""
    everyone = 0xFFFFFFFF
    entries = [(1, 7, everyone), (2, 5, 1234), (4, 5, everyone), (16, 7, everyone), (32, 0, everyone)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    _file(tree / "before")
    for name in ("default", "access"):
        os.setxattr(tree, f"system.posix_acl_{name}", acl)
    _file(tree / "after")
    (tree / "group").mkdir()
    os.chown(tree / "group", 0, 77)
    (tree / "group").chmod(0o2775)
    (tree / "group/inside").mkdir()
    (tree / "group/inside").chmod(0o700)


def names_of_any_bytes(tree: Path) -> None:
    chance = random.Random(1)
    names = [b"o257-7-0", b"\n\r\x1b[2J", b"\xff" * 255, *(b"n" + bytes([byte]) for byte in NAME_BYTES)]
    names += [bytes(chance.choices(NAME_BYTES, k=length)) for length in range(3, 256, 5)]
    for name in names:
        (tree / os.fsdecode(name)).write_bytes(name)


def exabytes_of_holes(tree: Path) -> None:
    os.truncate(_file(tree / "hole"), (1 << 63) - 1)
    with _file(tree / "islands").open("r+b") as file:
        for island in range(500):
            file.seek(island << 50)
            file.write(b"x")
    with _file(tree / "inline", b"start").open("r+b") as file:
        file.truncate(1 << 62)


def extents_of_all_sorts(tree: Path) -> None:
    """Extents that are preallocated, punched, inline or partly overwritten."""
    with _file(tree / "allocated").open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, 20 * MB)
        file.seek(5 * MB)
        file.write(b"written")
    with _file(tree / "punched", os.urandom(4 * MB)).open("r+b") as file:
        for start in (5, MB, 3 * MB + 1):
            _punch(file.fileno(), start, MB // 2)
    for size in (0, 1, 2047, 2049, 4095, 4096, 4097):
        _file(tree / f"of {size}", os.urandom(size))
    with _file(tree / "fragments", os.urandom(8 * MB)).open("r+b") as file:
        for block in range(0, 2048, 2):
            file.seek(block * 4096)
            file.write(os.urandom(4096))


def _punch(file: int, start: int, size: int) -> None:
    # os has no fallocate(2) with flags; this ioctl does the same
    fcntl.ioctl(file, FS_IOC_UNRESVSP, struct.pack("hhqqiI4i", 0, 0, start, size, 0, 0, 0, 0, 0, 0))


def compressed_files(tree: Path) -> None:
    """With btrfs compression, which a session can turn on by an attribute, a gigabyte of zeros takes 32 MB."""
    os.setxattr(tree, "btrfs.compression", b"zstd")
    with _file(tree / "zeros").open("r+b") as file:
        for _ in range(256):
            file.write(bytes(MB))
    lines = b"".join(b"line %d of a log\n" % line for line in range(100_000))
    with _file(tree / "log", lines).open("r+b") as file:
        _clone(tree / "log", tree / "shared log")
        for overwritten in range(20):
            file.seek(overwritten * 65_537)
            file.write(b"overwritten")
    for kind in (b"zlib", b"lzo"):
        os.setxattr(_file(tree / kind.decode()), "btrfs.compression", kind)
        (tree / kind.decode()).write_bytes(lines)


def shared_extents(tree: Path) -> None:
    _file(tree / "original", os.urandom(4 * MB))
    for copy in range(25):
        _clone(tree / "original", tree / f"{copy}")


def many_links(tree: Path) -> None:
    for directory in range(2):
        (tree / f"{directory}").mkdir()
    original = _file(tree / "original", b"x")
    for link in range(10_000):
        os.link(original, tree / f"{link % 2}/{link}")


def many_attributes(tree: Path) -> None:
    chance = random.Random(2)
    for number in range(50):
        path = _file(tree / f"{number}")
        for attribute in range(20):
            os.setxattr(path, f"user.{'k' * 200}{attribute}", chance.randbytes(number * 14))
    os.setxattr(_file(tree / "largest"), "user.a", chance.randbytes(16_000))


def paths_of_4000_bytes(tree: Path) -> None:
    _descend(tree, b"n" * 94, 42)
    levels(tree, 500)


def paths_that_are_too_long(tree: Path) -> None:
    _descend(tree, b"n" * 202, 20)


def ten_thousand_levels(tree: Path) -> None:
    _descend(tree, b"d" * 10, 10_000)


def one_extent_thousands_of_times(tree: Path) -> None:
    """Clones an extent so often that the kernel no longer sends clones, but the content each time."""
    original = _file(tree / "original", os.urandom(MB))
    with original.open("rb") as source, (tree / "copies").open("wb") as copies:
        for copy in range(2000):
            fcntl.ioctl(copies, FICLONERANGE, struct.pack("qQQQ", source.fileno(), 0, MB, copy * MB))


def levels(tree: Path, count: int) -> None:
    """Nested directories. The kernel's cost for each grows with the square of its depth."""
    _descend(tree, b"d", count)


def _descend(tree: Path, name: bytes, levels: int) -> None:
    here = os.open(tree, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=here)
        there = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = there
    os.close(here)


def _file(path: Path, content: bytes = b"", owner: tuple[int, int] = (0, 0), mode: int = 0o644) -> Path:
    path.write_bytes(content)
    os.chown(path, *owner)
    path.chmod(mode)
    return path


def _clone(source: Path, target: Path) -> None:
    with source.open("rb") as original, target.open("wb") as copy:
        fcntl.ioctl(copy, FICLONE, original.fileno())


type Tree = Callable[[Path], None]
EXACT: tuple[Tree, ...] = (
    every_kind,
    directories_that_give_to_what_is_made_in_them,
    names_of_any_bytes,
    exabytes_of_holes,
    extents_of_all_sorts,
    compressed_files,
    shared_extents,
    many_links,
    many_attributes,
    paths_of_4000_bytes,
)
UNSENDABLE: tuple[Tree, ...] = (paths_that_are_too_long, ten_thousand_levels, one_extent_thousands_of_times)
