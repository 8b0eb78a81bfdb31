"""What programs in a sandbox see of its limits: files that the host writes, in place of those of /proc and /sys.

    seen/meminfo                       over /proc/meminfo: the session's memory
        /cpuinfo                       over /proc/cpuinfo: as many processors as the session has cores
        /sys                           over /sys
            /devices/system/cpu/…      where programs count processors
            /fs/cgroup, /fs/btrfs      mount points: the kernel's own numbers of the session

A sandbox sees an overlay of them, read-only. New limits are written into the same files, as a mount keeps its file.
"""

import math
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from buntime.plan import Limits

CPU = "sys/devices/system/cpu"
QUOTA = "sys/fs/btrfs/session"  # the kernel's numbers of the session's volume
CGROUP = "sys/fs/cgroup"
PROC_FILES = ("meminfo", "cpuinfo")
# Programs stop at a missing line of these, or take it for an old kernel's.
ZERO = """Buffers Cached SwapCached Active Inactive Active(anon) Inactive(anon) Active(file) Inactive(file) Unevictable
Mlocked SwapTotal SwapFree Dirty Writeback AnonPages Mapped Shmem KReclaimable Slab SReclaimable SUnreclaim KernelStack
PageTables CommitLimit Committed_AS VmallocTotal VmallocUsed VmallocChunk"""


def write_seen(directory: Path, limits: Limits) -> None:
    """Makes the files, or changes the texts of those that other limits change."""
    (directory / CPU).mkdir(parents=True, exist_ok=True)
    for name, text in texts(limits, _hosts_cpuinfo(), os.cpu_count() or 1).items():
        _put(directory / name, text)


def _put(file: Path, text: str) -> None:
    if not file.exists():
        file.touch()
        file.chmod(0o444)  # whatever the umask
    with file.open("r+") as there:
        if there.read() != text:
            there.seek(0)
            there.write(text)
            there.truncate()  # not before: ext4 writes a file that was emptied to the disk, which takes a millisecond


@cache
def _hosts_cpuinfo() -> str:
    """Read once: with many processors the kernel takes milliseconds."""
    return Path("/proc/cpuinfo").read_text()


def make_mount_points(directory: Path, controllers: Mapping[str, Path]) -> None:
    for name in (QUOTA, *(f"{CGROUP}/{name}" for name in controllers)):
        (directory / name).mkdir(parents=True, exist_ok=True)
    for folder, _, _ in directory.walk():
        folder.chmod(0o755)  # whatever the umask: the session must reach the files


def texts(limits: Limits, cpuinfo: str, host_cores: int) -> dict[str, str]:
    """File → text. `cpuinfo`: the host's."""
    cores = _cores(limits, host_cores)
    online = "0\n" if cores == 1 else f"0-{cores - 1}\n"
    processors = cpuinfo.strip().split("\n\n")[:cores]
    return {
        "meminfo": _meminfo(limits.memory * 1024),
        "cpuinfo": "\n\n".join(processors) + "\n\n",
        **{f"{CPU}/{name}": online for name in ("online", "possible", "present")},
    }


def look_alike(one: Limits, other: Limits) -> bool:
    """Whether programs see the same of both when they start."""
    host_cores = os.cpu_count() or 1
    return (one.memory, _cores(one, host_cores)) == (other.memory, _cores(other, host_cores))


def _cores(limits: Limits, host_cores: int) -> int:
    return min(host_cores, max(1, math.ceil(limits.cpu)))


def _meminfo(total: int) -> str:
    """`total` in kB. What is in use changes all the time, so this file cannot say: all is free."""
    sizes = dict.fromkeys(("MemTotal", "MemFree", "MemAvailable"), total) | dict.fromkeys(ZERO.split(), 0)
    return "".join(f"{name + ':':<15} {size:>8} kB\n" for name, size in sizes.items())
