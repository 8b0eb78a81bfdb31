"""The machine under test, and its memory."""

import os
import platform
import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from buntime.config import Config
from buntime.plan import MB
from buntime.sandboxes import record
from buntime.sandboxes.kernel.cgroup_version import ROOT, find_cgroups
from buntime.sandboxes.kernel.file_system import mount
from buntime.sandboxes.kernel.host import memory_available, total_memory
from buntime.sandboxes.kernel.volume import Volumes

ZRAM = Path("/sys/class/zram-control")
SETTINGS = {"watermark_boost_factor": "0", "watermark_scale_factor": "125", "page-cluster": "0"}  # of scripts/zram
AT_HAND = re.compile(r"^ +count: +(\d+)$", re.MULTILINE)  # pages that one processor has, in /proc/zoneinfo


def about() -> dict[str, Any]:
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memoryMB": total_memory() // MB,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "loadBefore": os.getloadavg()[0],
    }


def available_mb() -> float:
    """Returns what the kernel can give to new programs without swapping: free memory and caches that it can drop.

    `MemAvailable` lacks the free pages that each processor keeps at hand. After the end of many programs, they are
    hundreds of MB.
    """
    at_hand = sum(int(pages) for pages in AT_HAND.findall(Path("/proc/zoneinfo").read_text()))
    return (memory_available() + at_hand * os.sysconf("SC_PAGE_SIZE")) / MB


def free_mb() -> float:
    """Returns what nothing uses, not even the page cache."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / MB


def sandboxes(instance: str) -> set[str]:
    """Returns the installation's sandboxes that have anything on the host."""
    return find_cgroups(instance).sandboxes()


def sandboxes_mb(instance: str) -> float:
    """Returns what the kernel charges to an installation's sandboxes: processes, page cache and kernel memory."""
    name = f"buntime-{instance}"
    v1, v2 = ROOT / "memory" / name, ROOT / name
    home, usage = (v1, "memory.usage_in_bytes") if v1.is_dir() else (v2, "memory.current")
    return sum(_number(group / usage) for group in home.glob("*/")) / MB


def without_files_mb(instance: str, sandbox: str) -> float:
    """Returns what the kernel charges to one sandbox, without the page cache."""
    v1, v2 = (ROOT / place / f"buntime-{instance}" / sandbox for place in ("memory", "."))
    group, usage, files = (
        (v1, "memory.usage_in_bytes", "total_cache") if v1.is_dir() else (v2, "memory.current", "file")
    )
    stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return (_number(group / usage) - int(stat[files])) / MB


def swapped_mb(instance: str, sandbox: str) -> float:
    """Returns what one sandbox has in swap, before compression."""
    v1, v2 = (ROOT / place / f"buntime-{instance}" / sandbox for place in ("memory", "."))
    if not v1.is_dir():
        return _number(v2 / "memory.swap.current") / MB
    stat = dict(line.split() for line in (v1 / "memory.stat").read_text().splitlines())
    return int(stat.get("total_swap", 0)) / MB


def zram_mb() -> float:
    """Returns what all compressed memory of the machine takes."""
    stats = [file.read_text().split() for file in Path("/sys/block").glob("zram*/mm_stat")]
    return sum(int(fields[2]) for fields in stats) / MB


def sandbox_of(config: Config, session: str) -> str:
    """Returns the id of the sandbox that serves or served a session. Raises RuntimeError."""
    return record_of(config, session).sandbox


def record_of(config: Config, session: str) -> record.Record:
    """Returns the host's record of that sandbox. Raises RuntimeError."""
    for directory in (config.data_dir / "sandboxes").iterdir():
        found = record.read(directory)
        if found is not None and found.session == session:
            return found
    raise RuntimeError(f"no sandbox of {session} is on this host")


def serving(config: Config) -> dict[str, str]:
    """Returns session → sandbox of all that are on this host."""
    records = (record.read(directory) for directory in (config.data_dir / "sandboxes").iterdir())
    return {found.session: found.sandbox for found in records if found is not None and found.session}


def volumes_of(config: Config) -> Volumes:
    """Returns the volumes of a running server, which has mounted them. Raises HostCommandFailed."""
    volumes = Volumes(config)
    volumes.facts, volumes.device = mount(volumes.directory, config.data_dir / "volumes.btrfs", config.volumes_gb)
    return volumes


def processes_of(instance: str) -> int:
    """Returns the number of processes in all sandboxes of an installation."""
    return sum(f"/buntime-{instance}/" in groups for groups in _groups_of_processes())


def _groups_of_processes() -> Iterator[str]:
    for file in Path("/proc").glob("[0-9]*/cgroup"):
        with suppress(OSError):  # the group is being removed
            yield file.read_text()


def edge_processes(config: Config) -> list[int]:
    """Returns the server, its nginx and nginx's workers. Raises OSError."""
    master = int((config.run_dir / "edge/nginx.pid").read_text())
    server = int((Path("/proc") / str(master) / "stat").read_text().rpartition(")")[2].split()[1])
    workers = (Path("/proc") / str(master) / "task" / str(master) / "children").read_text().split()
    return [server, master, *map(int, workers)]


def forget_peaks(processes: Iterable[int]) -> None:
    """Resets the peak memory of the processes."""
    for process in processes:
        Path(f"/proc/{process}/clear_refs").write_text("5")


def memory_mb(processes: Iterable[int], what: str) -> float:
    """Sums `VmRSS`, or `VmHWM` for the peaks since `forget_peaks`. Peaks differ in time, so the sum
    is an upper bound.
    """
    return sum(_status_kb(process, what) for process in processes) / 1024


def _status_kb(process: int, what: str) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


def reclaim(instance: str, sandbox: str) -> None:
    """Makes the kernel take all the memory that it can from a sandbox, also to swap, as pressure would in the end.

    Raises OSError.
    """
    v1, v2 = (ROOT / place / f"buntime-{instance}" / sandbox for place in ("memory", "."))
    if v1.is_dir():
        (v1 / "memory.force_empty").write_text("0")
        return
    with suppress(BlockingIOError):  # the kernel could take only part of it
        (v2 / "memory.reclaim").write_text((v2 / "memory.current").read_text())


@contextmanager
def swap(file: Path, size: int) -> Iterator[str]:
    """Adds `size` MB of swap: compressed memory if the kernel has it, or else a file. Yields "", or the reason for
    failure. Its content comes back to memory at the end.
    """
    with _zram(size) as device:
        made = "" if device else _made(file, size)
        refused = made or _run(["mkswap", "-q", device or file], ["swapon", "-p", "100", device or file])
        try:
            yield refused
        finally:
            if not refused:
                subprocess.run(["swapoff", device or file], check=True, capture_output=True)
            file.unlink(missing_ok=True)


@contextmanager
def _settings() -> Iterator[None]:
    files = {Path("/proc/sys/vm") / name: value for name, value in SETTINGS.items()}
    before = {file: file.read_text() for file in files}
    try:
        for file, value in files.items():
            file.write_text(value)
        yield
    finally:
        for file, text in before.items():
            file.write_text(text)


@contextmanager
def _zram(size: int) -> Iterator[Path | None]:
    """Yields a device of compressed memory of its own, or None if the kernel has none. As long as there is one, the
    kernel has the settings of `scripts/zram`."""
    try:
        number = (ZRAM / "hot_add").read_text().strip()
    except OSError:
        yield None
        return
    try:
        Path(f"/sys/block/zram{number}/disksize").write_text(f"{size}M")
        with _settings():
            yield Path(f"/dev/zram{number}")
    finally:
        (ZRAM / "hot_remove").write_text(number)


def _made(file: Path, size: int) -> str:
    file.touch(mode=0o600)
    return _run(["fallocate", "-l", f"{size}MiB", file])


def _run(*commands: list[str | Path]) -> str:
    """Runs the commands until one fails. Returns "", or the reason."""
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return f"{command[0]}: {done.stderr.strip()}"
    return ""


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except OSError:
        return 0  # the sandbox is being removed


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
