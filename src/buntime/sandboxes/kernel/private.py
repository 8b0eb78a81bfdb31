"""The one tmpfs of a sandbox: everything of its own that is in memory.

    dev/         over /dev, and dev/shm over /dev/shm: the session's
    run/         over /run: the session's
    devices/     the host's, each file bound on one of /dev; also resolv.conf
    empty/       the host's, over what the session must not see of /proc

It is one file system, because each one more costs the kernel memory for each memory cgroup of the host. The session
reaches it through mounts of the parts above alone. Each has flags of its own, and no path leads from one to another.
Devices and resolv.conf are files of this sandbox alone, although the host has them too: locks and inotify watches
belong to a file.
"""

import os
import stat
from pathlib import Path

from buntime.config import SHARED_RUN_DIR

# Mount points, the same for all threads. The container's root has no rights on the host, but must reach them, which it
# could not in the data directory.
MOUNTS = SHARED_RUN_DIR / "mounts"
PRIVATE = MOUNTS / "private"
DEV, RUN, HOSTS, EMPTY = (PRIVATE / name for name in ("dev", "run", "devices", "empty"))
SHM = DEV / "shm"
RESOLV_CONF = HOSTS / "resolv.conf"
SIZE_MB = 80  # of /dev, /dev/shm and /run together
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
LINKS = {
    "core": "/proc/kcore",
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}


def fill(resolv_conf: Path, owner: int) -> None:
    """Makes what a new sandbox has in the tmpfs, which is mounted at PRIVATE. `owner`: the host's id of its root."""
    _make_hosts(resolv_conf)
    for directory, mode in ((DEV, 0o755), (DEV / "pts", 0o755), (SHM, 0o1777), (RUN, 0o755), (RUN / "guest", 0o755)):
        directory.mkdir()
        directory.chmod(mode)  # whatever the umask
    for name, target in LINKS.items():
        (DEV / name).symlink_to(target)
    for name in DEVICES:
        (DEV / name).touch()  # a mount point
    for folder, directories, files in (*DEV.walk(), *RUN.walk()):
        for name in (".", *directories, *files):
            os.chown(folder / name, owner, owner, follow_symlinks=False)


def _make_hosts(resolv_conf: Path) -> None:
    for directory in (HOSTS, EMPTY):
        directory.mkdir()
        directory.chmod(0o755)
    for name, (major, minor) in DEVICES.items():
        os.mknod(HOSTS / name, stat.S_IFCHR, os.makedev(major, minor))
        (HOSTS / name).chmod(0o666)
    RESOLV_CONF.write_bytes(resolv_conf.read_bytes())
    RESOLV_CONF.chmod(0o644)
    times = resolv_conf.stat()  # else a session would see a changed file after each start
    os.utime(RESOLV_CONF, ns=(times.st_atime_ns, times.st_mtime_ns))
