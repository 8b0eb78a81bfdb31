"""The btrfs file system of the volumes: one that the operator mounted, or a file in the data directory. Blocking."""

import os
from pathlib import Path
from typing import NamedTuple

from buntime.sandboxes.kernel.commands import HostCommandFailed, call
from buntime.sandboxes.kernel.host import host_disk_free
from buntime.sandboxes.kernel.loops import attached

GB = 1 << 30
BTRFS = "btrfs"


class Mounted(NamedTuple):
    facts: Path  # the kernel's numbers of the file system
    device: str  # "major:minor"


def mount(directory: Path, file: Path, size_gb: int) -> Mounted:
    """Makes and mounts what is missing. `size_gb`: of a new file; 0: four fifths of the disk. Raises
    HostCommandFailed."""
    directory.mkdir(mode=0o700, exist_ok=True)
    if not os.path.ismount(directory):
        _make_and_mount(directory, file, size_gb)
    source, kind, uuid = call(["findmnt", "-nro", "SOURCE,FSTYPE,UUID", "--mountpoint", str(directory)]).split()
    if kind != BTRFS:
        raise HostCommandFailed(f"{directory} is a {kind} mount; it must be btrfs")
    # The mount hides the mount point's own mode. The host's users must not reach what sessions write.
    directory.chmod(0o700)
    facts = Path(f"/sys/fs/btrfs/{uuid}")
    if not (facts / "qgroups").exists():
        call(["btrfs", "quota", "enable", "--simple", str(directory)])
    device = Path(source.partition("[")[0]).stat().st_rdev
    return Mounted(facts, f"{os.major(device)}:{os.minor(device)}")


def _make_and_mount(directory: Path, file: Path, size_gb: int) -> None:
    if not file.exists():
        size = size_gb * GB or max(4 * GB, host_disk_free(file.parent) * 8 // 10)
        fresh = file.with_suffix(".new")
        with fresh.open("wb") as content:
            content.truncate(size // GB * GB)
        fresh.chmod(0o600)
        call(["mkfs.btrfs", "-q", "-f", "-m", "single", str(fresh)])
        fresh.rename(file)
    device, handle = attached(file)
    try:
        call(["mount", "-t", BTRFS, "-o", "noatime,nosuid,nodev,discard=async", str(device), str(directory)])
    finally:
        os.close(handle)
