"""The machine that the figures are of, and its memory."""

import os
import platform
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from buntime.config import Config
from buntime.plan import MB
from buntime.sandboxes import record
from buntime.sandboxes.kernel.cgroup_version import ROOT, find_cgroups
from buntime.sandboxes.kernel.host import memory_available, total_memory


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
    """What the kernel would give to new programs without swapping: free memory and caches that it can drop."""
    return memory_available() / MB


def sandboxes(instance: str) -> set[str]:
    """Those of an installation that have anything of theirs on the host."""
    return find_cgroups(instance).sandboxes()


def sandboxes_mb(instance: str) -> float:
    """What the kernel charges to the sandboxes of an installation: their processes, page cache and its own."""
    name = f"buntime-{instance}"
    v1, v2 = ROOT / "memory" / name, ROOT / name
    home, usage = (v1, "memory.usage_in_bytes") if v1.is_dir() else (v2, "memory.current")
    return sum(_number(group / usage) for group in home.glob("*/")) / MB


def sandbox_of(config: Config, session: str) -> str:
    """The id of the sandbox that serves a session, or has served it. Raises RuntimeError."""
    return record_of(config, session).sandbox


def record_of(config: Config, session: str) -> record.Record:
    """What the host keeps of that sandbox. Raises RuntimeError."""
    for directory in (config.data_dir / "sandboxes").iterdir():
        found = record.read(directory)
        if found is not None and found.session == session:
            return found
    raise RuntimeError(f"no sandbox of {session} is on this host")


def processes_of(instance: str) -> int:
    """How many processes all sandboxes of an installation have."""
    return sum(f"/buntime-{instance}/" in groups for groups in _groups_of_processes())


def _groups_of_processes() -> Iterator[str]:
    for file in Path("/proc").glob("[0-9]*/cgroup"):
        with suppress(OSError):  # it is just going
            yield file.read_text()


def edge_processes(config: Config) -> list[int]:
    """The server, its nginx and the workers of this. Raises OSError."""
    master = int((config.run_dir / "edge/nginx.pid").read_text())
    server = int((Path("/proc") / str(master) / "stat").read_text().rpartition(")")[2].split()[1])
    workers = (Path("/proc") / str(master) / "task" / str(master) / "children").read_text().split()
    return [server, master, *map(int, workers)]


def forget_peaks(processes: Iterable[int]) -> None:
    """The most memory that they had counts from now."""
    for process in processes:
        Path(f"/proc/{process}/clear_refs").write_text("5")


def memory_mb(processes: Iterable[int], what: str) -> float:
    """`VmRSS`, or `VmHWM` for the most since `forget_peaks`; each at its own time, so the sum is an upper bound."""
    return sum(_status_kb(process, what) for process in processes) / 1024


def _status_kb(process: int, what: str) -> int:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))


def reclaim(instance: str, sandbox: str) -> None:
    """What pressure does to a sandbox in the end: the kernel takes all of its memory that it can, to swap too.

    Raises OSError.
    """
    v1, v2 = (ROOT / place / f"buntime-{instance}" / sandbox for place in ("memory", "."))
    if v1.is_dir():
        (v1 / "memory.force_empty").write_text("0")
        return
    with suppress(BlockingIOError):  # less than all could be taken
        (v2 / "memory.reclaim").write_text((v2 / "memory.current").read_text())


@contextmanager
def swap(file: Path, size: int) -> Iterator[str]:
    """Swap of so many MB in a file of ours; "", or why there is none. What is in it comes back at the end."""
    refused = _swap_on(file, size)
    try:
        yield refused
    finally:
        if not refused:
            subprocess.run(["swapoff", file], check=True, capture_output=True)
        file.unlink(missing_ok=True)


def _swap_on(file: Path, size: int) -> str:
    file.touch(mode=0o600)
    for command in (["fallocate", "-l", f"{size}MiB"], ["mkswap", "-q"], ["swapon"]):
        done = subprocess.run([*command, file], capture_output=True, text=True, check=False)
        if done.returncode:
            return f"{command[0]}: {done.stderr.strip()}"
    return ""


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except OSError:
        return 0  # the sandbox is just going


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
