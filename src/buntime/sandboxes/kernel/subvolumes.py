"""The calls of btrfs that make, change, count and remove subvolumes. Blocking; each is one ioctl.

Directories and subvolumes are descriptors, which `opened` gives.
"""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

# linux/btrfs.h
SUBVOLUME_CREATE = 0x5000940E
SUBVOLUME_DESTROY = 0x5000940F
SNAPSHOT_CREATE = 0x50009417
SYNC = 0x9408
GET_FLAGS = 0x80089419
SET_FLAGS = 0x4008941A
QGROUP_LIMIT = 0x8030942B
QGROUP_CREATE = 0x4010942A
GET_INFO = 0x81F8943C
SET_RECEIVED = 0xC0C89425
INFO_SIZE, UUIDS_AT, TIMES_AT = 504, 296, 344  # of struct btrfs_ioctl_get_subvol_info_args
RECEIVED_SIZE = 200  # of struct btrfs_ioctl_received_subvol_args
UUID = 16  # bytes
READ_ONLY = 2
LIMIT_REFERENCED = 1
NO_LIMIT = (1 << 64) - 1  # the kernel then shows 0


@contextmanager
def opened(directory: Path) -> Iterator[int]:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def create(parent: int, name: str) -> None:
    """Raises FileExistsError."""
    fcntl.ioctl(parent, SUBVOLUME_CREATE, _named(name))


def snapshot(parent: int, name: str, source: int, *, read_only: bool) -> None:
    """Of what was written before the call; programs may write on. Durable. Raises FileExistsError."""
    asked = struct.pack("3Q32x4040s", source, 0, READ_ONLY if read_only else 0, name.encode())
    fcntl.ioctl(parent, SNAPSHOT_CREATE, bytearray(asked))  # struct btrfs_ioctl_vol_args_v2


def destroy(parent: Path, name: str) -> None:
    """Idempotent."""
    with suppress(FileNotFoundError), opened(parent) as directory:
        fcntl.ioctl(directory, SUBVOLUME_DESTROY, _named(name))


def _named(name: str) -> bytearray:
    """struct btrfs_ioctl_vol_args. Mutable, because fcntl takes at most 1 KiB of immutable bytes."""
    return bytearray(struct.pack("q4088s", 0, name.encode()))


def sync(directory: int) -> None:
    fcntl.ioctl(directory, SYNC)


def is_read_only(subvolume: int) -> bool:
    return bool(_flags(subvolume) & READ_ONLY)


@dataclass(frozen=True, slots=True)
class Identity:
    """Ids of a subvolume, 16 bytes each. Without a meaning, all are zero."""

    uuid: bytes
    parent: bytes  # of which it was made
    received: bytes  # in a stream, the sender's `uuid`


def identity(subvolume: int) -> Identity:
    found = bytearray(INFO_SIZE)
    fcntl.ioctl(subvolume, GET_INFO, found)
    return Identity(*(bytes(found[at : at + UUID]) for at in range(UUIDS_AT, UUIDS_AT + 3 * UUID, UUID)))


@dataclass(frozen=True, slots=True)
class Transactions:
    """Numbers of the file system's transactions, which grow."""

    changed: int  # that of the subvolume's last change, committed or not; what is not written out yet is no change
    made: int  # that in which it was made


def transactions(subvolume: int) -> Transactions:
    found = bytearray(INFO_SIZE)
    fcntl.ioctl(subvolume, GET_INFO, found)
    return Transactions(*struct.unpack_from("QQ", found, TIMES_AT))


def forget_sender(subvolume: int) -> None:
    """Of a subvolume that was received and is writable now. Its snapshots would go on having the sender's id, and
    `btrfs receive` finds the state below an increment by this id alone."""
    if has_sender(subvolume):
        fcntl.ioctl(subvolume, SET_RECEIVED, bytearray(RECEIVED_SIZE))


def has_sender(subvolume: int) -> bool:
    return any(identity(subvolume).received)


def set_read_only(subvolume: int, read_only: bool) -> None:
    """Raises PermissionError while it is being sent, and OSError at its limit."""
    now = _flags(subvolume)
    fcntl.ioctl(subvolume, SET_FLAGS, struct.pack("Q", now | READ_ONLY if read_only else now & ~READ_ONLY))


def _flags(subvolume: int) -> int:
    flags = bytearray(8)
    fcntl.ioctl(subvolume, GET_FLAGS, flags)
    return int(struct.unpack("Q", flags)[0])


def limit(parent: int, number: int, most: int) -> None:
    """The kernel charges the subvolume of this number for at most so many bytes."""
    # asked for by the subvolume itself, this would fail at its limit
    fcntl.ioctl(parent, QGROUP_LIMIT, struct.pack("6Q", number, LIMIT_REFERENCED, most, 0, 0, 0))


def forget(parent: int, number: int) -> None:
    """Removes the account of a subvolume that is gone. Raises OSError while it is needed."""
    fcntl.ioctl(parent, QGROUP_CREATE, struct.pack("2Q", 0, number))


def count(account: Path, name: str) -> int:
    """A number of the kernel. A tenth of the time that `Path.read_text` takes: some volumes are looked at often."""
    file = os.open(f"{account}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(file, 32))
    finally:
        os.close(file)
