"""Mounts a sandbox's layers where no other process sees them.

Threads with their own mount namespace make the mounts and start the runtime. The container copies that namespace, and
the thread unmounts again. The host's mount table does not change, so nothing is ever left in it, and no helper process
is needed for a mount.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from buntime.config import SHARED_RUN_DIR
from buntime.sandboxes.kernel.mount_calls import (
    MS_BIND,
    MS_NODEV,
    MS_NOSUID,
    MS_RDONLY,
    MS_REC,
    MS_SLAVE,
    detached,
    map_ids,
    mount,
    on_device,
    put,
    unmount,
)
from buntime.sandboxes.kernel.packed import KIND as PACKED_KIND
from buntime.snapshot import MOST_LAYERS

# Mount points, the same for all threads. The container's root has no rights on the host, but must reach them, which it
# could not in the data directory.
MOUNTS = SHARED_RUN_DIR / "mounts"
ROOT, IMAGE, VOLUME, SEEN, PROGRAMS, GUEST, RESOLV_CONF = (
    MOUNTS / name for name in ("root", "image", "volume", "seen", "programs", "guest", "resolv.conf")
)
PACKED = [MOUNTS / f"layer{number}" for number in range(1, MOST_LAYERS + 1)]
# With `redirect_dir`, a session can rename a directory of a layer below. With `index`, hard links of such a layer would
# stay together, but it refuses a copied or restored volume: see docs/decisions/0022-layers-below.md. Without
# `uuid`, the first mount of a volume would look different from all later ones.
OPTIONS = "metacopy=off,index=off,redirect_dir=on,uuid=null"
DEV = Path("/dev")  # the runtime takes a container's devices from here
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
THREADS = 4


@dataclass(frozen=True, slots=True)
class Layers:
    """Of a root file system."""

    image: Path
    packed: Sequence[Path]  # block devices with the layers above the image, the uppermost first; see `packed.py`
    volume: Path  # has upper/ and work/
    id_map: int  # a user namespace, as a file descriptor


@dataclass(frozen=True, slots=True)
class OwnFiles:
    """Mounted into a sandbox beside its root file system."""

    resolv_conf: Path
    seen: Path  # see `seen.py`
    guest: Path  # its programs, in the image of this host


class MountThreads:
    def __init__(self, hidden: Sequence[Path]) -> None:
        """`hidden`: mounts of the host that the threads must not see."""
        for directory in (ROOT, IMAGE, *PACKED, VOLUME, SEEN, PROGRAMS, GUEST):
            directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        RESOLV_CONF.touch(mode=0o644)
        self._threads = ThreadPoolExecutor(
            THREADS, thread_name_prefix="mounts", initializer=_leave_the_hosts_mounts, initargs=(hidden,)
        )

    def with_layers(self, layers: Layers, files: OwnFiles, work: Callable[[], None]) -> None:
        """Calls `work` with the overlay of the layers at ROOT and the files at their mount points. Raises
        HostCommandFailed, and what `work` raises."""

        def with_all() -> None:
            with _root(layers), _own_files(files, layers.id_map):
                work()

        self._threads.submit(with_all).result()

    def with_root(self, layers: Layers, work: Callable[[], None]) -> None:
        """The same with the overlay alone."""

        def with_overlay() -> None:
            with _root(layers):
                work()

        self._threads.submit(with_overlay).result()

    def close(self) -> None:
        self._threads.shutdown()


def _leave_the_hosts_mounts(hidden: Sequence[Path]) -> None:
    os.unshare(os.CLONE_NEWNS)
    mount("none", Path("/"), "", MS_REC | MS_SLAVE, "")  # mounts made here stay here
    for place in hidden:
        if os.path.ismount(place):
            unmount(place)


@contextmanager
def _root(layers: Layers) -> Iterator[None]:
    packed = PACKED[: len(layers.packed)]
    lower = ":".join(map(str, [*packed, IMAGE]))
    overlay = f"lowerdir={lower},upperdir={VOLUME}/upper,workdir={VOLUME}/work,{OPTIONS}"
    with ExitStack() as mounts:
        for device, target in zip(layers.packed, packed, strict=True):
            with on_device(device, PACKED_KIND) as tree:
                map_ids(tree, layers.id_map, str(device))
                put(tree, target)
            mounts.callback(unmount, target)
        for source, target in ((layers.image, IMAGE), (layers.volume, VOLUME)):
            _bind_idmapped(source, target, layers.id_map)
            mounts.callback(unmount, target)
        mount("overlay", ROOT, "overlay", MS_NOSUID | MS_NODEV, overlay)
        mounts.callback(unmount, ROOT)
        yield


@contextmanager
def _own_files(files: OwnFiles, id_map: int) -> Iterator[None]:
    """Mounts devices, guest, limits and resolv.conf as files of this sandbox alone, although the host has them too:
    locks and inotify watches belong to a file, and an overlay has files of its own."""
    with ExitStack() as mounts:
        mount("tmpfs", DEV, "tmpfs", MS_NOSUID, "mode=755,size=64k")
        mounts.callback(unmount, DEV)
        _fill_dev(files.resolv_conf)
        mount(str(DEV / RESOLV_CONF.name), RESOLV_CONF, "", MS_BIND, "")
        mounts.callback(unmount, RESOLV_CONF)
        # else the session could read the server's path in its mount table
        mount(str(files.seen), SEEN, "", MS_BIND, "")
        mounts.callback(unmount, SEEN)
        _bind_idmapped(files.guest, PROGRAMS, id_map)
        mounts.callback(unmount, PROGRAMS)
        # One file system for both: each one more costs the kernel memory for each cgroup of the host.
        lower = f"lowerdir={SEEN}:{PROGRAMS}"
        mount("overlay", GUEST, "overlay", MS_RDONLY | MS_NOSUID | MS_NODEV, lower)
        mounts.callback(unmount, GUEST)
        yield


def _fill_dev(resolv_conf: Path) -> None:
    for name, (major, minor) in DEVICES.items():
        os.mknod(DEV / name, stat.S_IFCHR, os.makedev(major, minor))
        (DEV / name).chmod(0o666)
    (DEV / RESOLV_CONF.name).write_bytes(resolv_conf.read_bytes())
    (DEV / RESOLV_CONF.name).chmod(0o644)
    times = resolv_conf.stat()  # else a session would see a changed file after each start
    os.utime(DEV / RESOLV_CONF.name, ns=(times.st_atime_ns, times.st_mtime_ns))


def _bind_idmapped(source: Path, target: Path, user_namespace: int) -> None:
    with detached(source) as tree:
        map_ids(tree, user_namespace, str(source))
        put(tree, target)
