"""What the whole machine uses, and whether it has room for more."""

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from bench.machine import available_mb

LEAST_MB = 1500.0  # with less available, no figure makes another session
LARGEST = 5  # slab caches that are shown
BUSY = (0, 1, 2, 5, 6)  # of /proc/stat: user, nice, system, irq, softirq


def has_room(more_mb: float = 0.0) -> bool:
    """Whether there is memory for sessions that take `more_mb`."""
    return available_mb() - more_mb >= LEAST_MB


def cpu_seconds() -> float:
    """Returns the CPU time of all programs and the kernel since the boot, without that of this process."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    return sum(int(fields[place]) for place in BUSY) / os.sysconf("SC_CLK_TCK") - time.process_time()


def watching_seconds() -> float:
    """Returns the CPU time that the kernel's DAMON has taken, where the machine runs it to see which memory is used.

    For each page of a file that it looks at, it goes through all programs that map the page.
    """
    spent = 0.0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (process / "comm").read_text().startswith("kdamond"):
                fields = (process / "stat").read_text().rpartition(")")[2].split()
                spent += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return spent


def swap_mb() -> float:
    """Returns how much is in swap, before compression."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    sizes = {name: int(size) for name, size, *_ in lines}
    return (sizes["SwapTotal:"] - sizes["SwapFree:"]) / 1024


def slabs() -> dict[str, int]:
    """Returns the bytes in use of each of the kernel's caches of objects."""
    fields = [line.split() for line in Path("/proc/slabinfo").read_text().splitlines()[2:]]
    return {name: int(used) * int(size) for name, used, _, size, *_ in fields}


def largest(found: Mapping[str, int]) -> str:
    """Describes the largest caches, in MB."""
    names = sorted(found, key=lambda name: -found[name])[:LARGEST]
    return ", ".join(f"{name} {found[name] / (1 << 20):.0f}" for name in names)
