"""How many file locks a session holds. No cgroup counts them, and the kernel has no limit.

Linux charges a lock's memory to nobody, and each close of a file walks through all locks on its inode. All eventfds,
epolls and timerfds of a host share one inode.
"""

import os
import random
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from buntime.sandboxes.kernel.cgroup import Cgroups
from buntime.sandboxes.kernel.cgroup_tree import children_of, text_of
from buntime.sandboxes.kernel.uncounted import MOST_LOCKS, PROC, Held, descriptors_of, objects_of

LOCKS = Path("/proc/locks")
LOCKS_READ = 4 << 20  # bytes of the kernel's list: reading it takes time
SAMPLED_PROCESSES, SAMPLED_FILES = 16, 16  # of a session, and of each sampled process


def number_of_locks() -> int | None:
    return objects_of("file_lock_cache")


def too_many_locks(cgroups: Cgroups) -> dict[str, Held]:
    """Sandbox → what it holds, for those with too many. Blocking."""
    found: dict[str, Held] = {}
    left = 0
    for pid, count in locks_by_process(_lock_lines()).items():
        sandbox, run = _place(cgroups, pid)
        if sandbox is not None:
            held = found.setdefault(sandbox, Held())
            held.count += count
            if run is not None:
                held.runs[run] += count
        elif not (PROC / str(pid)).exists():
            left += count
    over = {sandbox: held for sandbox, held in found.items() if held.count > MOST_LOCKS}
    return over | _keepers(cgroups, cgroups.sandboxes() - over.keys()) if left > MOST_LOCKS else over


def _keepers(cgroups: Cgroups, sandboxes: Iterable[str]) -> dict[str, Held]:
    """Sandboxes that hold the locks of processes that have ended. These are locks of whole files (flock), at most one
    for each open file, and another process may still have the file open. The count is an estimate from a sample."""
    over: dict[str, Held] = {}
    for sandbox in sandboxes:
        runs = {run: cgroups.run_processes(sandbox, run) for run in cgroups.runs(sandbox)}
        files = {pid: descriptors_of(pid) for pids in runs.values() for pid in pids}
        total = sum(files.values())
        if total > MOST_LOCKS and (count := int(total * _locked_share(files))) > MOST_LOCKS:
            over[sandbox] = Held(count, Counter({run: sum(files[pid] for pid in pids) for run, pids in runs.items()}))
    return over


def _locked_share(files: dict[int, int]) -> float:
    """The share of open files that have locks, from 0 to 1. `files`: process → how many open files it has."""
    looked = locked = 0
    for pid in random.choices(list(files), weights=list(files.values()), k=SAMPLED_PROCESSES):
        with suppress(OSError):
            names = [entry.name for entry in os.scandir(PROC / str(pid) / "fdinfo")]
            for name in random.sample(names, min(SAMPLED_FILES, len(names))):
                locked += "lock:" in text_of(PROC / str(pid) / "fdinfo" / name)
                looked += 1
    return locked / max(1, looked)


def locks_by_process(lines: Iterable[str]) -> Counter[int]:
    """Leaves out waiters, of which each thread is one at most ("1: -> POSIX …")."""
    counts: Counter[int] = Counter()
    for line in lines:
        words = line.split(maxsplit=5)
        if len(words) > 5 and words[1] in ("POSIX", "FLOCK"):
            counts[int(words[4])] += 1
    return counts


def _lock_lines() -> list[str]:
    read = bytearray()
    file = os.open(LOCKS, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while len(read) < LOCKS_READ and (part := os.read(file, 1 << 16)):
            read += part
    finally:
        os.close(file)
    return read.decode().splitlines()


def _place(cgroups: Cgroups, pid: int) -> tuple[str | None, str | None]:
    """The sandbox and the run of a process. Where its first thread has ended, only its other threads have a cgroup."""
    process = PROC / str(pid)
    with suppress(OSError):
        place = cgroups.place_of(text_of(process / "cgroup"))
        if place[0] is not None:
            return place
        for thread in children_of(process / "task"):
            place = cgroups.place_of(text_of(process / "task" / thread / "cgroup"))
            if place[0] is not None:
                return place
    return None, None
