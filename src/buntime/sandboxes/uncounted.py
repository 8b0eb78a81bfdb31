"""How much a session holds in the kernel that no cgroup counts: sockets, and file locks.

Unread answers of netlink and queues of errors keep some 115 KB for each socket. Each file lock is an object that
Linux charges to nobody, and each close of a file walks through all locks on its inode.
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from buntime.sandboxes.cgroup import Cgroups
from buntime.sandboxes.cgroup_tree import children_of, text_of

MOST_SOCKETS, MOST_LOCKS = 4096, 4096  # of one session
SOCKETS_STEP, LOCKS_STEP = 2048, 4096  # so many more on the whole host are a reason to look at each sandbox
SELDOM_SECONDS = 10.0  # looks come so often without a reason, too
REST = 20  # times as long as a look took: looks take no more than a twentieth of the time
AGAIN_SECONDS = 1.0  # from the end of runs to the look that tells whether it was enough
LOCKS_READ = 4 << 20  # bytes of the kernel's list, which takes longer the longer it is
SLABS, LOCKS, PROC = Path("/sys/kernel/slab"), Path("/proc/locks"), Path("/proc")
FILES = Path("/proc/sys/fs/file-nr")


class Pace:
    """When to look at all sandboxes, by a number of the host's that is quick to read."""

    def __init__(self, step: int) -> None:
        self._step = step
        self._low: int | None = None  # the least since the last look
        self._seldom = self._rested = 0.0

    def is_due(self, number: int | None, now: float) -> bool:
        """`number`: None where the kernel does not tell it."""
        if now < self._rested:
            return False
        if number is None or self._low is None:
            return True
        self._low = min(self._low, number)
        return number - self._low > self._step or now >= self._seldom

    def looked(self, number: int | None, began: float, ended: float, *, again: bool) -> None:
        """`again`: something was ended, and the next look tells whether it was enough."""
        self._low = None if again else number
        self._rested = ended + max(REST * (ended - began), AGAIN_SECONDS if again else 0.0)
        self._seldom = ended + SELDOM_SECONDS


class Severity:
    """How much of a sandbox to end: 1 = the runs that hold most, 2 = all runs, 3 = all of it, as others hold it."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[int, int]] = {}  # sandbox → level, count

    def next(self, over: Mapping[str, int]) -> dict[str, int]:
        """`over`: how much each sandbox holds that holds too much. What has fallen by half may still be ending."""
        levels: dict[str, int] = {}
        for sandbox, count in over.items():
            level, before = self._last.get(sandbox, (0, 0))
            levels[sandbox] = level if count <= before // 2 else min(level + 1, 3)
        self._last = {sandbox: (levels[sandbox], over[sandbox]) for sandbox in over}
        return levels


@dataclass(slots=True)
class Held:
    """By one session."""

    count: int = 0
    runs: Counter[str] = field(default_factory=Counter)

    def largest(self, most: int) -> list[str]:
        """The runs that hold more than an equal share of what all may."""
        return [run for run, count in self.runs.items() if count >= most // len(self.runs)]


def number_of_sockets() -> int | None:
    """Of the host; of all open files where the kernel does not tell it."""
    number = _objects("sock_inode_cache")
    return int(FILES.read_text().split()[0]) if number is None else number


def number_of_locks() -> int | None:
    return _objects("file_lock_cache")


def _objects(cache: str) -> int | None:
    """All that there is memory for, which takes no time to count."""
    try:
        return int(text_of(SLABS / cache / "total_objects").split()[0])
    except OSError:
        return None


def too_many_sockets(cgroups: Cgroups) -> dict[str, Held]:
    """Sandbox → what it holds. Blocking; two small files of each sandbox."""
    over: dict[str, Held] = {}
    for sandbox in cgroups.sandboxes():
        with suppress(OSError, IndexError):  # it is gone by now
            count = sockets_in(text_of(PROC / str(cgroups.guest_processes(sandbox)[0]) / "net/sockstat"))
            if count > MOST_SOCKETS:
                over[sandbox] = Held(
                    count, Counter({run: _descriptors(cgroups, sandbox, run) for run in cgroups.runs(sandbox)})
                )
    return over


def sockets_in(sockstat: str) -> int:
    """ "sockets: used N" comes first."""
    return int(sockstat.split(maxsplit=3)[2])


def _descriptors(cgroups: Cgroups, sandbox: str, run: str) -> int:
    count = 0
    for pid in cgroups.run_processes(sandbox, run):
        with suppress(OSError):
            count += sum(1 for _ in os.scandir(PROC / str(pid) / "fd"))
    return count


def too_many_locks(cgroups: Cgroups) -> dict[str, Held]:
    """Sandbox → what it holds. Blocking."""
    found: dict[str, Held] = {}
    for pid, count in locks_by_process(_lock_lines()).items():
        sandbox, run = _place(cgroups, pid)
        if sandbox is not None:
            held = found.setdefault(sandbox, Held())
            held.count += count
            if run is not None:
                held.runs[run] += count
    return {sandbox: held for sandbox, held in found.items() if held.count > MOST_LOCKS}


def locks_by_process(lines: Iterable[str]) -> Counter[int]:
    """Without what waits for a lock, which is no more than one for each thread ("1: -> POSIX …")."""
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
    """The sandbox and the run of a process. The kernel does not say it of a process whose first thread has ended."""
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
