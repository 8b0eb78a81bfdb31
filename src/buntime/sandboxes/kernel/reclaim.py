"""Gives back the memory of suspended sandboxes, where the host swaps: `pageout.py` pushes it out.

It begins after a while, because a request that comes soon would have to wait for its pages. Without swap there is
nothing to gain: memory that can be dropped counts as free already.
"""

import asyncio
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from buntime.daemon.tasks import Tasks
from buntime.plan import MB
from buntime.sandboxes.kernel import pageout
from buntime.sandboxes.kernel.cgroup import Cgroups
from buntime.sandboxes.kernel.transfer import ENDS_WITH_SERVER, GENTLY

AFTER = 60.0  # seconds of suspension
AT_ONCE = 1
SWAPS = Path("/proc/swaps")
LITTLE = 16 * MB  # in swap of an awake session: its limits may stay as they are
SOON, LATE = 0.2, 5.0  # seconds between looks at a session whose pages come back


def host_swaps() -> bool:
    return len(SWAPS.read_text().splitlines()) > 1  # the first line is a heading


def command(places: Iterable[Path]) -> Sequence[str]:
    """`places`: see `pageout`."""
    return [*ENDS_WITH_SERVER, *GENTLY, sys.executable, "-I", "-S", pageout.__file__, *map(str, places)]


class Reclaim:
    """For one sandbox. The command runs in its own process, because only killing a process makes the kernel stop at a
    thaw. A session at work would read its pages back as fast as they are taken."""

    def __init__(
        self, sandbox: str, cgroups: Cgroups, places: asyncio.Semaphore, tasks: Tasks, after: float | None = None
    ) -> None:
        self._sandbox = sandbox
        self._cgroups = cgroups
        self._after = AFTER if after is None else after
        self._places = places
        self._tasks = tasks
        self._timer: asyncio.TimerHandle | None = None
        self._wanted = False
        self._out = 0  # bytes in swap, when last seen
        self._process: asyncio.subprocess.Process | None = None

    def frozen(self) -> None:
        """Begins to reclaim after a while."""
        self._stop()
        self._timer = asyncio.get_running_loop().call_later(self._after, self._begin)

    def thawed(self) -> None:
        """Stops reclaiming. Pages come back one by one as they are used. Idempotent."""
        self._stop()
        if self._out > LITTLE:
            self._timer = asyncio.get_running_loop().call_later(SOON, self._look, SOON)

    def _stop(self) -> None:
        self._wanted = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    def _begin(self) -> None:
        self._timer = None
        if host_swaps():
            self._wanted = True
            self._tasks.start(self._reclaim(), "reclaim")

    async def _reclaim(self) -> None:
        async with self._places:
            with suppress(OSError):  # it has ended, or the kernel takes no limit
                if self._wanted and self._cgroups.lend_swap(self._sandbox):
                    try:
                        await self._run()
                    finally:
                        self._out = await asyncio.to_thread(self._cgroups.settle_swap, self._sandbox)

    async def _run(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *command(self._cgroups.pages_at(self._sandbox)), stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL
        )
        if not self._wanted:  # thawed while the process started
            self._process.kill()
        await self._process.wait()  # the exit code does not matter: the kernel took what it could
        self._process = None

    def _look(self, wait: float) -> None:
        """Gives an awake session its memory limit back as its pages come back."""
        self._timer, before = None, self._out
        with suppress(OSError):  # it has ended
            self._out = self._cgroups.settle_swap(self._sandbox)
            if self._out > LITTLE:
                wait = SOON if self._out < before else min(2 * wait, LATE)
                self._timer = asyncio.get_running_loop().call_later(wait, self._look, wait)
