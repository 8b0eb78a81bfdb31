"""Mounts a sandbox's layers where no other process sees them.

Threads with their own mount namespace make the mounts and start the runtime. The container copies that namespace, and
the thread unmounts again. The host's mount table does not change, so nothing is ever left in it, and no helper process
is needed for a mount.
"""

import ctypes
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from buntime.config import SHARED_RUN_DIR
from buntime.sandboxes.kernel.commands import HostCommandFailed

# Mount points, the same for all threads. The container's root has no rights on the host, but must reach them, which it
# could not in the data directory.
MOUNTS = SHARED_RUN_DIR / "mounts"
ROOT, IMAGE, VOLUME, SEEN, GUEST, RESOLV_CONF = (
    MOUNTS / name for name in ("root", "image", "volume", "seen", "guest", "resolv.conf")
)
GUEST_IN_IMAGE = IMAGE / "usr/lib/buntime"
DEV = Path("/dev")  # the runtime takes a container's devices from here
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
THREADS = 4

# linux/mount.h, linux/fcntl.h. These calls have the same numbers on all machines.
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_SLAVE = 1, 2, 4, 4096, 16384, 1 << 19
MNT_DETACH = 2
SYS_OPEN_TREE, SYS_MOVE_MOUNT, SYS_MOUNT_SETATTR = 428, 429, 442
OPEN_TREE_CLONE, AT_EMPTY_PATH, MOVE_MOUNT_F_EMPTY_PATH, MOUNT_ATTR_IDMAP = 1, 0x1000, 4, 0x100000
AT_FDCWD = -100

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns_fd")]


@dataclass(frozen=True, slots=True)
class Layers:
    image: Path
    volume: Path  # has upper/ and work/
    resolv_conf: Path
    seen: Path  # see `seen.py`
    id_map: int  # a user namespace, as a file descriptor


class MountThreads:
    def __init__(self, hidden: Sequence[Path]) -> None:
        """`hidden`: mounts of the host that the threads must not see."""
        for directory in (ROOT, IMAGE, VOLUME, SEEN, GUEST):
            directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        RESOLV_CONF.touch(mode=0o644)
        self._threads = ThreadPoolExecutor(
            THREADS, thread_name_prefix="mounts", initializer=_leave_the_hosts_mounts, initargs=(hidden,)
        )

    def with_layers(self, layers: Layers, work: Callable[[], None]) -> None:
        """Calls `work` with the overlay of the layers at ROOT. Raises HostCommandFailed, and what `work` raises."""
        self._threads.submit(_mounted, layers, work).result()

    def close(self) -> None:
        self._threads.shutdown()


def _leave_the_hosts_mounts(hidden: Sequence[Path]) -> None:
    os.unshare(os.CLONE_NEWNS)
    _mount("none", Path("/"), "", MS_REC | MS_SLAVE, "")  # mounts made here stay here
    for mount in hidden:
        if os.path.ismount(mount):
            _unmount(mount)


def _mounted(layers: Layers, work: Callable[[], None]) -> None:
    overlay = (
        f"lowerdir={IMAGE},upperdir={VOLUME}/upper,workdir={VOLUME}/work,metacopy=off,index=off,redirect_dir=nofollow"
    )
    done: list[Path] = []
    try:
        for source, target in ((layers.image, IMAGE), (layers.volume, VOLUME)):
            _bind_idmapped(source, target, layers.id_map)
            done.append(target)
        _mount("overlay", ROOT, "overlay", MS_NOSUID | MS_NODEV, overlay)
        done.append(ROOT)
        for target in _mount_own_files(layers.resolv_conf, layers.seen):
            done.append(target)
        work()
    finally:
        for target in reversed(done):
            _unmount(target)


def _mount_own_files(resolv_conf: Path, seen: Path) -> Iterator[Path]:
    """Mounts devices, guest, limits and resolv.conf as files of this sandbox alone, although the host has them too:
    locks and inotify watches belong to a file, and an overlay has files of its own. Yields each mount point."""
    _mount("tmpfs", DEV, "tmpfs", MS_NOSUID, "mode=755,size=64k")
    yield DEV
    for name, (major, minor) in DEVICES.items():
        os.mknod(DEV / name, stat.S_IFCHR, os.makedev(major, minor))
        (DEV / name).chmod(0o666)
    (DEV / RESOLV_CONF.name).write_bytes(resolv_conf.read_bytes())
    (DEV / RESOLV_CONF.name).chmod(0o644)
    times = resolv_conf.stat()  # else a session would see a changed file after each start
    os.utime(DEV / RESOLV_CONF.name, ns=(times.st_atime_ns, times.st_mtime_ns))
    _mount(str(DEV / RESOLV_CONF.name), RESOLV_CONF, "", MS_BIND, "")
    yield RESOLV_CONF
    _mount(str(seen), SEEN, "", MS_BIND, "")  # else the session could read the server's path in its mount table
    yield SEEN
    # One file system for both: each one more costs the kernel memory for each cgroup of the host.
    layers = f"lowerdir={SEEN}:{GUEST_IN_IMAGE}"
    _mount("overlay", GUEST, "overlay", MS_RDONLY | MS_NOSUID | MS_NODEV, layers)
    yield GUEST


def _bind_idmapped(source: Path, target: Path, userns: int) -> None:
    tree = _checked(
        _libc.syscall(SYS_OPEN_TREE, AT_FDCWD, os.fsencode(source), OPEN_TREE_CLONE | os.O_CLOEXEC), f"open {source}"
    )
    try:
        attributes = _MountAttributes(set=MOUNT_ATTR_IDMAP, userns_fd=userns)
        size = ctypes.c_size_t(ctypes.sizeof(attributes))
        _checked(
            _libc.syscall(SYS_MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, ctypes.byref(attributes), size),
            f"id map on {source}",
        )
        _checked(
            _libc.syscall(SYS_MOVE_MOUNT, tree, b"", AT_FDCWD, os.fsencode(target), MOVE_MOUNT_F_EMPTY_PATH),
            f"mount {source}",
        )
    finally:
        os.close(tree)


def _mount(source: str, target: Path, kind: str, flags: int, options: str) -> None:
    result = _libc.mount(
        source.encode(), os.fsencode(target), kind.encode() or None, ctypes.c_ulong(flags), options.encode() or None
    )
    _checked(result, f"mount {source} on {target}")


def _unmount(target: Path) -> None:
    _checked(_libc.umount2(os.fsencode(target), MNT_DETACH), f"unmount {target}")


def _checked(result: int, what: str) -> int:
    if result < 0:
        raise HostCommandFailed(f"{what}: {os.strerror(ctypes.get_errno())}")
    return result
