"""The writable layers of sessions: one btrfs subvolume each, with a limit by simple quotas.

They live on their own btrfs file system: one that the operator mounted at `data_dir/volumes`, or a file in the data
directory. Blocking; most calls are one ioctl.

A volume that is being received grows in `volumes/incoming` and gets its name when it is whole.
"""

import fcntl
import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from buntime.config import Config
from buntime.errors import Unavailable
from buntime.plan import MB
from buntime.ports import VolumeLost
from buntime.sandboxes.kernel import transfer
from buntime.sandboxes.kernel.commands import HostCommandFailed, call
from buntime.sandboxes.kernel.host import host_disk_free

# linux/btrfs.h
SUBVOLUME_CREATE = 0x5000940E
SUBVOLUME_DESTROY = 0x5000940F
SYNC = 0x9408
GET_FLAGS = 0x80089419
SET_FLAGS = 0x4008941A
INODE_LOOKUP = 0xD0009412
QGROUP_LIMIT = 0x8030942B
FIRST_OBJECT = 256
LIMIT_REFERENCED = 1
READ_ONLY = 2

GB = 1 << 30
BTRFS = "btrfs"
LAYERS = ("upper", "work")
FULL_MARGIN = 1 * MB  # closer to the limit, the next write of ordinary size fails


class Volumes:
    """`volumes/<sandbox id>/{upper,work}`, as overlayfs needs them."""

    def __init__(self, config: Config) -> None:
        self.directory = config.data_dir / "volumes"
        self._file = config.data_dir / "volumes.btrfs"
        self._size_gb = config.volumes_gb
        self._data_dir = config.data_dir
        self._incoming = self.directory / "incoming"
        self.facts = Path()  # the kernel's numbers of the file system
        self.device: str | None = None  # "major:minor"

    @property
    def mounted(self) -> bool:
        return os.path.ismount(self.directory)

    def path(self, sandbox: str) -> Path:
        return self.directory / sandbox

    def upper(self, volume: str) -> Path:
        """The files of a volume or a layer, as overlayfs keeps them."""
        return self.path(volume) / LAYERS[0]

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
        # The mount hides the mount point's own mode. The host's users must not reach what sessions write.
        self.directory.chmod(0o700)
        self.facts = Path(f"/sys/fs/btrfs/{uuid}")
        if not (self.facts / "qgroups").exists():
            call(["btrfs", "quota", "enable", "--simple", str(self.directory)])
        device = Path(source.partition("[")[0]).stat().st_rdev
        self.device = f"{os.major(device)}:{os.minor(device)}"
        self._incoming.mkdir(mode=0o700, exist_ok=True)
        for left in self._incoming.iterdir():  # what a killed server left
            self._clear(left)

    def _make_and_mount(self) -> None:
        if not self._file.exists():
            size = self._size_gb * GB or max(4 * GB, host_disk_free(self._data_dir) * 8 // 10)
            fresh = self._file.with_suffix(".new")
            with fresh.open("wb") as file:
                file.truncate(size // GB * GB)
            fresh.chmod(0o600)
            call(["mkfs.btrfs", "-q", "-f", "-m", "single", str(fresh)])
            fresh.rename(self._file)
        # with direct I/O, a file's pages are cached once, and not again under the loop device
        loop = call(["losetup", "--direct-io=on", "--find", "--show", str(self._file)]).strip()
        try:
            call(["mount", "-t", BTRFS, "-o", "noatime,nosuid,nodev,discard=async", loop, str(self.directory)])
        finally:
            call(["losetup", "--detach", loop])  # takes effect at the unmount

    def unmount(self) -> None:
        """For a purge. Stopped sessions keep their volumes mounted."""
        if self.mounted:
            call(["umount", str(self.directory)])
        self._file.unlink(missing_ok=True)

    def create(self, sandbox: str, limit_mb: int) -> None:
        """Raises FileExistsError."""
        with _opened(self.directory) as parent:
            fcntl.ioctl(parent, SUBVOLUME_CREATE, _named(sandbox))
        self.open(sandbox, limit_mb)

    def open(self, sandbox: str, limit_mb: int) -> None:
        """Makes the volume ready for a sandbox: writable, with its limit, and with its directories, which a power loss
        may have removed.

        Raises PermissionError while the volume is being sent.
        """
        self._set_read_only(self.path(sandbox), False)
        self.limit(sandbox, limit_mb)
        for name in LAYERS:
            (self.path(sandbox) / name).mkdir(mode=0o755, exist_ok=True)

    def limit(self, sandbox: str, limit_mb: int) -> None:
        _limit(self.path(sandbox), limit_mb)

    def is_full(self, sandbox: str) -> bool:
        """By the kernel's count, with what is promised to unwritten pages."""
        promised = ("rsv_data", "rsv_meta_prealloc", "rsv_meta_pertrans")
        most, *charged = self._numbers(sandbox, "max_referenced", "referenced", *promised)
        return sum(charged) + FULL_MARGIN > most

    def used(self, sandbox: str) -> int:
        """Bytes of the disk that the volume is charged for, as of the file system's last commit."""
        return self._numbers(sandbox, "referenced")[0]

    def limit_of(self, sandbox: str) -> int:
        """Bytes."""
        return self._numbers(sandbox, "max_referenced")[0]

    def _numbers(self, sandbox: str, *names: str) -> list[int]:
        group = self.quota(sandbox)
        return [int((group / name).read_text()) for name in names]

    def quota(self, sandbox: str) -> Path:
        """A directory with the kernel's numbers of the volume."""
        with _opened(self.path(sandbox)) as volume:
            asked = bytearray(struct.pack("QQ4080s", 0, FIRST_OBJECT, b""))
            fcntl.ioctl(volume, INODE_LOOKUP, asked)
        return self.facts / "qgroups" / f"0_{struct.unpack_from('Q', asked)[0]}"

    def sync(self) -> None:
        """When this returns, all writes to all volumes are on disk."""
        with _opened(self.directory) as volumes:
            fcntl.ioctl(volumes, SYNC)

    def exists(self, sandbox: str) -> bool:
        """Whether the whole volume is on this host."""
        return self.path(sandbox).is_dir()

    def destroy(self, sandbox: str) -> None:
        """Idempotent. The kernel frees the space afterwards."""
        _destroy(self.directory, sandbox)

    def all(self) -> set[str]:
        found = {entry.name for entry in os.scandir(self.directory) if entry.is_dir(follow_symlinks=False)}
        return found - {self._incoming.name}

    # --- as a stream ---

    def send(self, sandbox: str, largest: int) -> Iterator[bytes]:
        """A stream for `receive`, of at most `largest` bytes; see `transfer.sent`. The volume must not be in use, and
        cannot be opened until the iterator ends or is closed.

        Raises VolumeLost, VolumeUnsendable and Unavailable.
        """
        volume = self.path(sandbox)
        if not self.exists(sandbox):
            raise VolumeLost(sandbox)
        with _host_failures():
            room = max(self.limit_of(sandbox), self.used(sandbox))
            self._set_read_only(volume, True)
        try:
            yield from transfer.sent(volume, largest, room)
        finally:
            with _host_failures():
                self._set_read_only(volume, False)

    def receive(self, sandbox: str, limit_mb: int, content: Iterator[bytes]) -> None:
        """When this returns, the volume is on disk as it was sent. When it raises, nothing of it is.

        Raises what `content` raises; Unavailable; and ValueError where the content is no stream of this volume, or the
        volume exists already: an existing volume is never replaced.
        """
        if self.exists(sandbox):
            raise ValueError(f"{sandbox} is here already")
        place = self._incoming / sandbox
        try:
            with _host_failures():
                self._clear(place)
                place.mkdir(mode=0o700)
            transfer.received(place, content)
            if [grown.name for grown in place.iterdir()] != [sandbox]:
                raise ValueError(f"not the stream of {sandbox}")
            with _host_failures():
                self._take_in(place / sandbox, limit_mb)
        finally:
            self._clear(place)

    def _take_in(self, grown: Path, limit_mb: int) -> None:
        self._set_read_only(grown, False)
        _limit(grown, limit_mb)
        self.sync()  # its content before its name
        grown.rename(self.path(grown.name))
        self.sync()

    def _clear(self, place: Path) -> None:
        """Removes a partly received volume. Idempotent."""
        if not place.exists():
            return
        for grown in list(place.iterdir()):
            _destroy(place, grown.name)
        place.rmdir()

    def _set_read_only(self, volume: Path, read_only: bool) -> None:
        """Idempotent. Raises PermissionError while the volume is being sent."""
        with _opened(volume) as handle:
            flags = bytearray(8)
            fcntl.ioctl(handle, GET_FLAGS, flags)
            (now,) = struct.unpack("Q", flags)
            wanted = now | READ_ONLY if read_only else now & ~READ_ONLY
            if wanted != now:
                fcntl.ioctl(handle, SET_FLAGS, struct.pack("Q", wanted))

    def size(self) -> int:
        """Bytes of the whole file system."""
        return shutil.disk_usage(self.directory).total

    def free(self) -> int:
        """Bytes that are free for all volumes together."""
        return shutil.disk_usage(self.directory).free


@contextmanager
def _host_failures() -> Iterator[None]:
    """For steps that only the host can make fail. Raises Unavailable."""
    try:
        yield
    except OSError as failed:
        raise Unavailable(f"A volume could not be moved just now: {failed.strerror}.") from failed


def _limit(volume: Path, limit_mb: int) -> None:
    with _opened(volume) as handle:
        fcntl.ioctl(handle, QGROUP_LIMIT, struct.pack("6Q", 0, LIMIT_REFERENCED, limit_mb * MB, 0, 0, 0))


def _destroy(directory: Path, name: str) -> None:
    try:
        with _opened(directory) as parent:
            fcntl.ioctl(parent, SUBVOLUME_DESTROY, _named(name))
    except FileNotFoundError:
        return


@contextmanager
def _opened(directory: Path) -> Iterator[int]:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def _named(name: str) -> bytearray:
    """struct btrfs_ioctl_vol_args. Mutable, because fcntl takes at most 1 KiB of immutable bytes."""
    return bytearray(struct.pack("q4088s", 0, name.encode()))
