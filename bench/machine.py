"""The machine that the figures are of, and its memory."""

import os
import platform
from pathlib import Path
from typing import Any

from buntime.plan import MB
from buntime.sandboxes.cgroup import ROOT, find_cgroups
from buntime.sandboxes.host import memory_available, total_memory


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
