"""How much a session holds in the kernel that no cgroup counts, when to look, and how much to end.

This module counts sockets: unread answers of netlink and queues of errors take some 115 KB each. `uncounted_locks.py`
counts locks.
"""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from buntime.sandboxes.kernel.cgroup import Cgroups
from buntime.sandboxes.kernel.cgroup_tree import text_of

MOST_SOCKETS, MOST_LOCKS = 4096, 4096  # of one session
SOCKETS_STEP, LOCKS_STEP = 2048, 4096  # so many more on the whole host: look at each sandbox
SELDOM_SECONDS = 10.0  # between looks that have no such reason
REST = 20  # times as long as a look took, so that looks take a twentieth of the time at most
AGAIN_SECONDS = 1.0  # from ending runs to the look that tells whether it was enough
SLABS, PROC = Path("/sys/kernel/slab"), Path("/proc")
FILES = Path("/proc/sys/fs/file-nr")


class Pace:
    """Decides when to look at all sandboxes, from a number of the host that is quick to read."""

    def __init__(self, step: int) -> None:
        self._step = step
        self._low: int | None = None  # the least since the last look
        self._seldom = self._rested = 0.0

    def is_due(self, number: int | None, now: float) -> bool:
        """`number`: None where the kernel does not have it."""
        if now < self._rested:
            return False
        if number is None or self._low is None:
            return True
        self._low = min(self._low, number)
        return number - self._low > self._step or now >= self._seldom

    def looked(self, number: int | None, began: float, ended: float, *, again: bool) -> None:
        """`again`: runs were ended, and the next look tells whether that was enough."""
        self._low = None if again else number
        self._rested = ended + max(REST * (ended - began), AGAIN_SECONDS if again else 0.0)
        self._seldom = ended + SELDOM_SECONDS


class Severity:
    """How much of a sandbox to end: 1 = the runs that hold most, 2 = all runs, 3 = the whole sandbox."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[int, int]] = {}  # sandbox → level, count

    def next(self, over: Mapping[str, int]) -> dict[str, int]:
        """`over`: the counts of sandboxes that hold too much. One that has halved its count may still be ending."""
        levels: dict[str, int] = {}
        for sandbox, count in over.items():
            level, before = self._last.get(sandbox, (0, 0))
            levels[sandbox] = level if count <= before // 2 else min(level + 1, 3)
        self._last = {sandbox: (levels[sandbox], over[sandbox]) for sandbox in over}
        return levels


@dataclass(slots=True)
class Held:
    """What one session holds."""

    count: int = 0
    runs: Counter[str] = field(default_factory=Counter)

    def largest(self, most: int) -> list[str]:
        """The runs that hold more than an equal share of the session's limit."""
        return [run for run, count in self.runs.items() if count >= most // len(self.runs)]


def number_of_sockets() -> int | None:
    """Sockets of the host, or all open files where the kernel does not count sockets."""
    number = objects_of("sock_inode_cache")
    return int(FILES.read_text().split()[0]) if number is None else number


def objects_of(cache: str) -> int | None:
    """How many objects the cache has memory for: quick to read. None where the kernel does not say."""
    try:
        return int(text_of(SLABS / cache / "total_objects").split()[0])
    except OSError:
        return None


def too_many_sockets(cgroups: Cgroups) -> dict[str, Held]:
    """Sandbox → what it holds, for those with too many. Blocking; reads two small files of each sandbox."""
    over: dict[str, Held] = {}
    for sandbox in cgroups.sandboxes():
        with suppress(OSError, IndexError):  # it has ended
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
    return sum(descriptors_of(pid) for pid in cgroups.run_processes(sandbox, run))


def descriptors_of(pid: int) -> int:
    place = PROC / str(pid) / "fd"
    try:
        return place.stat().st_size or len(list(place.iterdir()))  # the size is the count since Linux 6.2
    except OSError:  # it has ended
        return 0
