"""Ends runs whose sockets hold more memory than the session may, on cgroup v1.

There the limit of sockets is soft: a connection that is accepted late brings what waits in it past the limit, and each
socket keeps a least buffer. The kernel ends nothing for it. Looks at sandboxes cost time with each, so there are none
while all sockets of the host together hold little.
"""

import asyncio
from contextlib import suppress
from pathlib import Path

import structlog

from buntime.sandboxes.cgroup import Cgroups

log = structlog.get_logger()

LOOK_SECONDS = 0.2
SOCKETS, TCP_PAGES = Path("/proc/net/sockstat"), Path("/proc/sys/net/ipv4/tcp_mem")
LITTLE = 8  # part of what the kernel counts as no pressure at all


async def watch_sockets(cgroups: Cgroups) -> None:
    """For ever."""
    while True:
        if _much_is_held():
            await asyncio.to_thread(end_hoarders, cgroups)
        await asyncio.sleep(LOOK_SECONDS)


def end_hoarders(cgroups: Cgroups) -> None:
    """Blocking."""
    for sandbox in cgroups.sandboxes():
        with suppress(OSError):  # it is gone by now
            if runs := cgroups.hoarders(sandbox):
                for run in runs:
                    cgroups.kill_run(sandbox, run)
                log.warning("sockets_held_too_much", sandbox=sandbox, runs=len(runs))


def _much_is_held() -> bool:
    """By TCP and UDP, of the whole host."""
    lines = (line.split() for line in SOCKETS.read_text().splitlines())
    pages = sum(int(words[words.index("mem") + 1]) for words in lines if words[0] in ("TCP:", "UDP:"))
    return pages > int(TCP_PAGES.read_text().split()[0]) // LITTLE
