"""The system calls for mounts, which the standard library lacks. Each raises HostCommandFailed with what was tried."""

import ctypes
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from buntime.sandboxes.kernel.commands import HostCommandFailed

# linux/mount.h, linux/fcntl.h, linux/openat2.h. New calls have the same numbers on all machines.
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_SLAVE = 1, 2, 4, 4096, 16384, 1 << 19
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV = 1, 2, 4
_MNT_DETACH = 2
_OPEN_TREE, _MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT, _OPENAT2, _MOUNT_SETATTR = 428, 429, 430, 431, 432, 437, 442
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_OPEN_TREE_CLONE, _AT_EMPTY_PATH, _FROM_EMPTY_PATH, _TO_EMPTY_PATH = 1, 0x1000, 4, 0x40
_CLOEXEC = 1  # of fsopen and fsmount
_SET_FLAG, _SET_STRING, _CREATE = 0, 1, 6  # of fsconfig
_ATTR_IDMAP = 0x100000
_RESOLVE_NO_XDEV, _RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 1, 2, 4, 8
_AT_FDCWD = -100

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns_fd")]


def mount(source: str, target: Path, kind: str, flags: int, options: str) -> None:
    result = _libc.mount(
        source.encode(), os.fsencode(target), kind.encode() or None, ctypes.c_ulong(flags), options.encode() or None
    )
    _checked(result, f"mount {source} on {target}")


def unmount(target: Path) -> None:
    _checked(_libc.umount2(os.fsencode(target), _MNT_DETACH), f"unmount {target}")


@contextmanager
def detached(source: Path) -> Iterator[int]:
    """A copy of the mount at this path, or a bind of the directory, which is mounted nowhere yet."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC
    tree = _checked(_libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(source), flags), f"open {source}")
    try:
        yield tree
    finally:
        os.close(tree)


@contextmanager
def on_device(device: Path, kind: str) -> Iterator[int]:
    """A read-only mount of the file system on the device, which is mounted nowhere yet. All mounts of one device are of
    the same file system, and share its pages."""
    settings = ((_SET_STRING, b"source", os.fsencode(device)), (_SET_FLAG, b"ro", None))
    with _new(kind, settings, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV, f"mount {device}") as tree:
        yield tree


@contextmanager
def new_proc() -> Iterator[int]:
    """A /proc that is mounted nowhere, with a memory of its own for the names in it.

    Each network namespace has its own entries below /proc/sys/net, all by the same names. One /proc remembers those of
    all namespaces that were looked at, and compares a name with each.
    """
    with _new("proc", (), ATTR_NOSUID | ATTR_NODEV, "mount proc") as tree:
        yield tree


@contextmanager
def new_sysfs() -> Iterator[int]:
    """A /sys that is mounted nowhere, with the interfaces of the calling thread's network namespace."""
    with _new("sysfs", (), ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV, "mount sysfs") as tree:
        yield tree


@contextmanager
def _new(kind: str, settings: Sequence[tuple[int, bytes, bytes | None]], attributes: int, what: str) -> Iterator[int]:
    context = _checked(_libc.syscall(_FSOPEN, kind.encode(), _CLOEXEC), what)
    try:
        for command, key, value in (*settings, (_CREATE, None, None)):
            _checked(_libc.syscall(_FSCONFIG, context, command, key, value, 0), what)
        tree = _checked(_libc.syscall(_FSMOUNT, context, _CLOEXEC, attributes), what)
    finally:
        os.close(context)
    try:
        yield tree
    finally:
        os.close(tree)


def restrict(tree: int, attributes: int, what: str) -> None:
    """`attributes`: some of ATTR_…"""
    _set_attributes(tree, _MountAttributes(set=attributes), what)


def map_ids(tree: int, user_namespace: int, what: str) -> None:
    _set_attributes(tree, _MountAttributes(set=_ATTR_IDMAP, userns_fd=user_namespace), f"id map on {what}")


def _set_attributes(tree: int, attributes: _MountAttributes, what: str) -> None:
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    _checked(_libc.syscall(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, ctypes.byref(attributes), size), what)


def put(tree: int, target: Path) -> None:
    """Mounts a detached copy."""
    _checked(
        _libc.syscall(_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(target), _FROM_EMPTY_PATH), f"mount on {target}"
    )


def move(source: Path, target: int) -> None:
    """Moves a mount with all that is mounted below it. `target`: an open directory or file."""
    result = _libc.syscall(_MOVE_MOUNT, _AT_FDCWD, os.fsencode(source), target, b"", _TO_EMPTY_PATH)
    _checked(result, f"move the mount {source}")


def open_below(directory: int, path: str) -> int:
    """Opens the path as O_PATH does. Refuses symbolic links, and what another file system is mounted on."""
    resolve = _RESOLVE_NO_XDEV | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS | _RESOLVE_BENEATH
    how = struct.pack("3Q", os.O_PATH | os.O_CLOEXEC, 0, resolve)
    return _checked(_libc.syscall(_OPENAT2, directory, path.encode(), how, len(how)), f"open {path}")


def pivot_to_working_directory() -> None:
    """Makes the working directory the root of this mount namespace, also for each of its processes whose root or
    working directory was the old root, and unmounts the old one."""
    _checked(_libc.syscall(_PIVOT_ROOT[os.uname().machine], b".", b"."), "pivot_root")
    unmount(Path())


def _checked(result: int, what: str) -> int:
    if result < 0:
        raise HostCommandFailed(f"{what}: {os.strerror(ctypes.get_errno())}")
    return result
