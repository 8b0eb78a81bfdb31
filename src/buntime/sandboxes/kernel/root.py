"""Gives a running sandbox another root file system, in place of the one that its container was started with.

The new root is mounted outside, where no other process sees it, and taken along into the sandbox's mount namespace.
There everything that is mounted in the sandbox moves below it. Then `pivot_root` makes it the root, also for the
sandbox's processes. Nothing of the old root stays, as long as no process has an open file of it or another working
directory than its root.

What is in the new root comes from a session and is not trusted. The mount points in it are opened without following
symbolic links. If one is not what it should be, nothing has changed yet, and `NotAttachable` is raised.
"""

import os
import stat
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.kernel.mount_calls import (
    ATTR_NODEV,
    ATTR_NOSUID,
    ATTR_RDONLY,
    detached,
    move,
    open_below,
    pivot_to_working_directory,
    put,
    restrict,
    unmount,
)
from buntime.sandboxes.kernel.mounts import ROOT, Layers, MountThreads
from buntime.sandboxes.kernel.seen import QUOTA

DIRECTORIES, FILES = ("proc", "dev", "run", "sys"), ("etc/resolv.conf",)  # what a sandbox has mounted, see `oci.py`
PLACE = Path("/mnt")  # of the new root, in the old one
BOUND = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV


class NotAttachable(Exception):
    """The session has changed a directory of its system that the sandbox needs. The message says which."""


type Leave = Callable[[int], None]


def replace_root(threads: MountThreads, init: int, layers: Layers, quota: Path, leave: Leave) -> None:
    """`init`: a pidfd of the sandbox's init. `quota`: the kernel's numbers of the volume. Blocking.

    Calls `leave` with a descriptor of the old root just before that is unmounted. The last one who closes it waits
    until the kernel has written out the whole file system of the volumes, so that is not done here.

    Raises NotAttachable, which changes nothing, and HostCommandFailed, after which the sandbox must be removed.
    """
    threads.with_root(layers, lambda: _replace(init, quota, leave))


def _replace(init: int, quota: Path, leave: Leave) -> None:
    with ExitStack() as stack:
        new = stack.enter_context(detached(ROOT))
        points = {name: _opened(new, name, stack) for name in (*DIRECTORIES, *FILES)}
        numbers = stack.enter_context(detached(quota))
        restrict(numbers, BOUND, f"bind {quota}")
        ours = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, ours)
        try:
            os.setns(init, os.CLONE_NEWNS)
        except OSError as failed:
            raise HostCommandFailed(f"enter the sandbox: {failed}") from failed
        try:
            _swap(new, points, numbers, leave)
        finally:
            _return_to(ours)


def _return_to(mount_namespace: int) -> None:
    try:
        os.setns(mount_namespace, os.CLONE_NEWNS)
    except OSError:
        os.abort()  # this thread would make the next mounts in the session's namespace


def _opened(root: int, name: str, stack: ExitStack) -> int:
    try:
        point = open_below(root, name)
    except HostCommandFailed as failed:
        raise NotAttachable(str(failed)) from failed
    stack.callback(os.close, point)
    is_right = stat.S_ISDIR if name in DIRECTORIES else stat.S_ISREG
    if not is_right(os.fstat(point).st_mode):
        raise NotAttachable(f"/{name} is something else")
    return point


def _swap(new: int, points: dict[str, int], numbers: int, leave: Leave) -> None:
    """In the sandbox's mount namespace."""
    unmount(Path("/", QUOTA))
    put(numbers, Path("/", QUOTA))
    put(new, PLACE)
    for name, point in points.items():
        move(Path("/", name), point)
    leave(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    os.chdir(PLACE)
    pivot_to_working_directory()
