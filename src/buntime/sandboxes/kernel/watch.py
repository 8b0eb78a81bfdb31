"""Ends runs that hold more of the kernel's memory than a session may, where the kernel does not stop them.

On cgroup v1 the limit on sockets' memory is soft: a connection that is accepted late takes its waiting data past the
limit, and each socket keeps a smallest buffer. `uncounted.py` and `uncounted_locks.py` count what no cgroup counts, on
v1 and v2.

A look costs time for each sandbox, so there is none while the host's own numbers are low.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import structlog

from buntime.sandboxes.kernel.cgroup import Cgroups
from buntime.sandboxes.kernel.cgroup_tree import text_of
from buntime.sandboxes.kernel.uncounted import (
    LOCKS_STEP,
    MOST_LOCKS,
    MOST_SOCKETS,
    REST,
    SOCKETS_STEP,
    Held,
    Pace,
    Severity,
    number_of_sockets,
    too_many_sockets,
)
from buntime.sandboxes.kernel.uncounted_locks import number_of_locks, too_many_locks

log = structlog.get_logger()

LOOK_SECONDS = 0.2
SOCKETS, TCP_PAGES = Path("/proc/net/sockstat"), Path("/proc/sys/net/ipv4/tcp_mem")
LITTLE = 8  # this part of what the kernel calls no pressure is little
WHOLE = 3  # severity


async def watch_kernel(cgroups: Cgroups, end_sandbox: Callable[[str], Awaitable[None]]) -> None:
    """Runs until it is cancelled."""
    watches = (
        Watch("sockets", MOST_SOCKETS, Pace(SOCKETS_STEP), number_of_sockets, too_many_sockets),
        Watch("locks", MOST_LOCKS, Pace(LOCKS_STEP), number_of_locks, too_many_locks),
    )
    rested = 0.0
    while True:
        try:
            if time.monotonic() >= rested and _much_is_held():
                looked = await asyncio.to_thread(end_hoarders, cgroups)
                rested = time.monotonic() + REST * looked  # a host with thousands of sandboxes may be busy for long
            for watch in watches:
                number = watch.number()
                if watch.pace.is_due(number, time.monotonic()):
                    for sandbox in await asyncio.to_thread(watch.look, cgroups, number):
                        await end_sandbox(sandbox)
        except OSError as failed:  # the host may have no open file left just now
            log.warning("kernel_memory_not_watched", reason=str(failed))
        await asyncio.sleep(LOOK_SECONDS)


class Watch:
    """Watches one kind of objects that no cgroup counts."""

    def __init__(
        self,
        kind: str,
        most: int,
        pace: Pace,
        number: Callable[[], int | None],
        over: Callable[[Cgroups], dict[str, Held]],
    ) -> None:
        self._kind, self._most = kind, most
        self.pace, self.number, self._over = pace, number, over
        self._severity = Severity()

    def look(self, cgroups: Cgroups, number: int | None) -> list[str]:
        """Ends runs, and returns the sandboxes to end as a whole. Blocking."""
        began = time.monotonic()
        over = self._over(cgroups)
        looked = time.monotonic()
        levels = self._severity.next({sandbox: held.count for sandbox, held in over.items()})
        whole = [sandbox for sandbox, held in over.items() if self._end(cgroups, sandbox, held, levels[sandbox])]
        # the time that ending took is not part of the look
        self.pace.looked(number, time.monotonic() - (looked - began), time.monotonic(), again=bool(over))
        return whole

    def _end(self, cgroups: Cgroups, sandbox: str, held: Held, level: int) -> bool:
        """Returns whether the whole sandbox must end: processes of a frozen sandbox would not end by themselves."""
        with suppress(OSError):  # it has ended
            whole = level == WHOLE or cgroups.is_frozen(sandbox)
            runs = (held.largest(self._most) if level == 1 else []) or cgroups.runs(sandbox)
            ended = 0 if whole else sum(cgroups.kill_run(sandbox, run) for run in runs)
            log.warning(f"{self._kind}_held_too_many", sandbox=sandbox, count=held.count, runs=ended, whole=whole)
            return whole
        return False


def end_hoarders(cgroups: Cgroups) -> float:
    """Ends the runs that the cgroups name. Returns the seconds that looking took, without ending. Blocking."""
    began, found = time.monotonic(), dict[str, list[str]]()
    for sandbox in cgroups.sandboxes():
        with suppress(OSError):  # it has ended
            found[sandbox] = cgroups.hoarders(sandbox)
    looked = time.monotonic() - began
    for sandbox, runs in found.items():
        for run in runs:
            with suppress(OSError):
                cgroups.kill_run(sandbox, run)
        if runs:
            log.warning("sockets_held_too_much", sandbox=sandbox, runs=len(runs))
    return looked


def _much_is_held() -> bool:
    """Whether TCP and UDP of the whole host hold much memory."""
    lines = (line.split() for line in text_of(SOCKETS).splitlines())
    pages = sum(int(words[words.index("mem") + 1]) for words in lines if words[0] in ("TCP:", "UDP:"))
    return pages > _pages_without_pressure() // LITTLE


def _pages_without_pressure() -> int:
    """What TCP may have before the kernel saves memory. Only the host's own network namespace shows it; in another one,
    this is what the kernel takes at boot."""
    try:
        return int(text_of(TCP_PAGES).split()[0])
    except FileNotFoundError:
        return os.sysconf("SC_PHYS_PAGES") * 3 // 64
