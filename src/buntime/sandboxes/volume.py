"""The writable layers of sessions: one btrfs subvolume each, with a limit by simple quotas.

They live on a btrfs file system of their own: one that the operator mounted at `data_dir/volumes`, or
a file of ours in the data directory. Blocking; most calls are one ioctl.
"""

import fcntl
import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from buntime.config import Config
from buntime.plan import MB
from buntime.sandboxes.commands import HostCommandFailed, call
from buntime.sandboxes.host import host_disk_free

# linux/btrfs.h
SUBVOLUME_CREATE = 0x5000940E
SUBVOLUME_DESTROY = 0x5000940F
SYNC = 0x9408
INODE_LOOKUP = 0xD0009412
QGROUP_LIMIT = 0x8030942B
FIRST_OBJECT = 256
LIMIT_REFERENCED = 1

GB = 1 << 30
BTRFS = "btrfs"
FULL_MARGIN = 1 * MB  # closer to the limit than this, the next write of ordinary size fails


class Volumes:
    """`volumes/<sandbox id>/{upper,work}`: what overlayfs asks for."""

    def __init__(self, config: Config) -> None:
        self.directory = config.data_dir / "volumes"
        self._file = config.data_dir / "volumes.btrfs"
        self._size_gb = config.volumes_gb
        self._data_dir = config.data_dir
        self._qgroups = Path()
        self.device: str | None = None  # "major:minor"

    @property
    def mounted(self) -> bool:
        return os.path.ismount(self.directory)

    def path(self, sandbox: str) -> Path:
        return self.directory / sandbox

    def mount(self) -> None:
        """Makes and mounts what is missing. Raises HostCommandFailed."""
        self.directory.mkdir(mode=0o700, exist_ok=True)
        if not self.mounted:
            self._make_and_mount()
        source, kind, uuid = call(
            ["findmnt", "-nro", "SOURCE,FSTYPE,UUID", "--mountpoint", str(self.directory)]
        ).split()
        if kind != BTRFS:
            raise HostCommandFailed(f"{self.directory} is a {kind} mount; it must be btrfs")
        # the mount point's own mode is hidden now: what sessions write must be out of reach of the host's users
        self.directory.chmod(0o700)
        self._qgroups = Path(f"/sys/fs/btrfs/{uuid}/qgroups")
        if not self._qgroups.exists():
            call(["btrfs", "quota", "enable", "--simple", str(self.directory)])
        device = Path(source.partition("[")[0]).stat().st_rdev
        self.device = f"{os.major(device)}:{os.minor(device)}"

    def _make_and_mount(self) -> None:
        if not self._file.exists():
            size = self._size_gb * GB or max(4 * GB, host_disk_free(self._data_dir) * 8 // 10)
            fresh = self._file.with_suffix(".new")
            with fresh.open("wb") as file:
                file.truncate(size // GB * GB)
            fresh.chmod(0o600)
            call(["mkfs.btrfs", "-q", "-f", "-m", "single", str(fresh)])
            fresh.rename(self._file)
        # direct I/O: the pages of a file are cached once, not again under the loop device
        loop = call(["losetup", "--direct-io=on", "--find", "--show", str(self._file)]).strip()
        try:
            call(["mount", "-t", BTRFS, "-o", "noatime,nosuid,nodev,discard=async", loop, str(self.directory)])
        finally:
            call(["losetup", "--detach", loop])  # takes effect at the unmount

    def unmount(self) -> None:
        """For a purge; sessions that are stopped only keep theirs mounted."""
        if self.mounted:
            call(["umount", str(self.directory)])
        self._file.unlink(missing_ok=True)

    def create(self, sandbox: str, limit_mb: int) -> None:
        """Raises FileExistsError."""
        with _opened(self.directory) as parent:
            fcntl.ioctl(parent, SUBVOLUME_CREATE, _named(sandbox))
        self.limit(sandbox, limit_mb)
        for name in ("upper", "work"):
            (self.path(sandbox) / name).mkdir(mode=0o755)

    def limit(self, sandbox: str, limit_mb: int) -> None:
        with _opened(self.path(sandbox)) as volume:
            fcntl.ioctl(volume, QGROUP_LIMIT, struct.pack("6Q", 0, LIMIT_REFERENCED, limit_mb * MB, 0, 0, 0))

    def is_full(self, sandbox: str) -> bool:
        """By the kernel's account, what is promised to unwritten pages included."""
        with _opened(self.path(sandbox)) as volume:
            asked = bytearray(struct.pack("QQ4080s", 0, FIRST_OBJECT, b""))
            fcntl.ioctl(volume, INODE_LOOKUP, asked)
        group = self._qgroups / f"0_{struct.unpack_from('Q', asked)[0]}"

        def number(name: str) -> int:
            return int((group / name).read_text())

        used = number("referenced") + number("rsv_data") + number("rsv_meta_prealloc") + number("rsv_meta_pertrans")
        return used + FULL_MARGIN > number("max_referenced")

    def sync(self) -> None:
        """What was written to any volume is on disk when this returns."""
        with _opened(self.directory) as volumes:
            fcntl.ioctl(volumes, SYNC)

    def exists(self, sandbox: str) -> bool:
        return self.path(sandbox).is_dir()

    def destroy(self, sandbox: str) -> None:
        """Idempotent. The kernel frees the space behind it."""
        try:
            with _opened(self.directory) as parent:
                fcntl.ioctl(parent, SUBVOLUME_DESTROY, _named(sandbox))
        except FileNotFoundError:
            return

    def all(self) -> set[str]:
        return {entry.name for entry in os.scandir(self.directory) if entry.is_dir(follow_symlinks=False)}

    def free(self) -> int:
        """Bytes that are free for all volumes together."""
        return shutil.disk_usage(self.directory).free


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def _named(name: str) -> bytearray:
    """struct btrfs_ioctl_vol_args; mutable, since fcntl takes no longer immutable one than 1 KiB."""
    return bytearray(struct.pack("q4088s", 0, name.encode()))
