"""Mounts a sandbox's layers where no other process sees them.

Threads with their own mount namespace make the mounts and start the runtime. The container copies that namespace, and
the thread unmounts again. The host's mount table does not change, so nothing is ever left in it, and no helper process
is needed for a mount.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from buntime.sandboxes.kernel import huge
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
from buntime.sandboxes.kernel.private import HOSTS, MOUNTS, PRIVATE, SIZE_MB, fill
from buntime.snapshot import MOST_LAYERS

ROOT, IMAGE, HUGE, VOLUME, SEEN, PROGRAMS, HUGE_PROGRAMS, GUEST = (
    MOUNTS / name for name in ("root", "image", "huge", "volume", "seen", "programs", "huge_programs", "guest")
)
PACKED = [MOUNTS / f"layer{number}" for number in range(1, MOST_LAYERS + 1)]
# With `redirect_dir`, a session can rename a directory of a layer below. With `index`, hard links of such a layer would
# stay together, but it refuses a copied or restored volume: see docs/decisions/0022-layers-below.md. Without
# `uuid`, the first mount of a volume would look different from all later ones.
OPTIONS = "metacopy=off,index=off,redirect_dir=on,uuid=null"
DEV = Path("/dev")  # the runtime takes its mask of files, /dev/null, from here
THREADS = 4
COVER_KB = 256


@dataclass(frozen=True, slots=True)
class Layers:
    """Of a root file system."""

    image: Path
    packed: Sequence[Path]  # block devices with the layers above the image, the uppermost first; see `packed.py`
    volume: Path  # has upper/ and work/
    id_map: int  # a user namespace, as a file descriptor
    huge: Path | None = None  # a directory that lies over the image, see `huge.py`


@dataclass(frozen=True, slots=True)
class OwnFiles:
    """Mounted into a sandbox beside its root file system."""

    resolv_conf: Path
    seen: Path  # see `seen.py`
    guest: Path  # its programs, in the image of this host
    owner: int  # the host's id of the sandbox's root
    huge: Path | None = None  # a directory that lies over the guest's image


class MountThreads:
    def __init__(self, hidden: Sequence[Path], covered: Sequence[Path] = ()) -> None:
        """`hidden`: mounts of the host that the threads must not see. `covered`: the same, and each thread has an empty
        directory of its own there."""
        for directory in (ROOT, IMAGE, HUGE, *PACKED, VOLUME, SEEN, PROGRAMS, HUGE_PROGRAMS, GUEST, PRIVATE):
            directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._threads = ThreadPoolExecutor(
            THREADS, thread_name_prefix="mounts", initializer=_leave_the_hosts_mounts, initargs=(hidden, covered)
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


def _leave_the_hosts_mounts(hidden: Sequence[Path], covered: Sequence[Path]) -> None:
    os.unshare(os.CLONE_NEWNS)
    mount("none", Path("/"), "", MS_REC | MS_SLAVE, "")  # mounts made here stay here
    for place in hidden:
        if os.path.ismount(place):
            unmount(place)
    for place in covered:
        mount("tmpfs", place, "tmpfs", MS_NOSUID | MS_NODEV, f"mode=700,size={COVER_KB}k")


@contextmanager
def _root(layers: Layers) -> Iterator[None]:
    packed = PACKED[: len(layers.packed)]
    over_image = [] if layers.huge is None else [(layers.huge / huge.ROOT, HUGE)]
    lower = ":".join(map(str, [*packed, *(target for _, target in over_image), IMAGE]))
    overlay = f"lowerdir={lower},upperdir={VOLUME}/upper,workdir={VOLUME}/work,{OPTIONS}"
    with ExitStack() as mounts:
        for device, target in zip(layers.packed, packed, strict=True):
            with on_device(device, PACKED_KIND) as tree:
                map_ids(tree, layers.id_map, str(device))
                put(tree, target)
            mounts.callback(unmount, target)
        for source, target in ((layers.image, IMAGE), *over_image, (layers.volume, VOLUME)):
            _bind_idmapped(source, target, layers.id_map)
            mounts.callback(unmount, target)
        mount("overlay", ROOT, "overlay", MS_NOSUID | MS_NODEV, overlay)
        mounts.callback(unmount, ROOT)
        yield


@contextmanager
def _own_files(files: OwnFiles, id_map: int) -> Iterator[None]:
    """Mounts the sandbox's tmpfs, guest and limits. What the host has too are files of this sandbox alone, as an
    overlay has files of its own."""
    with ExitStack() as mounts:
        mount("tmpfs", PRIVATE, "tmpfs", MS_NOSUID, f"mode=711,size={SIZE_MB}m")
        mounts.callback(unmount, PRIVATE)
        fill(files.resolv_conf, files.owner)
        mount(str(HOSTS), DEV, "", MS_BIND, "")
        mounts.callback(unmount, DEV)
        # else the session could read the server's path in its mount table
        mount(str(files.seen), SEEN, "", MS_BIND, "")
        mounts.callback(unmount, SEEN)
        over_guest = [] if files.huge is None else [(files.huge / huge.GUEST, HUGE_PROGRAMS)]
        for source, target in (*over_guest, (files.guest, PROGRAMS)):
            _bind_idmapped(source, target, id_map)
            mounts.callback(unmount, target)
        # One file system for all: each one more costs the kernel memory for each cgroup of the host.
        lower = ":".join(map(str, [SEEN, *(target for _, target in over_guest), PROGRAMS]))
        mount("overlay", GUEST, "overlay", MS_RDONLY | MS_NOSUID | MS_NODEV, f"lowerdir={lower}")
        mounts.callback(unmount, GUEST)
        yield


def _bind_idmapped(source: Path, target: Path, user_namespace: int) -> None:
    with detached(source) as tree:
        map_ids(tree, user_namespace, str(source))
        put(tree, target)
