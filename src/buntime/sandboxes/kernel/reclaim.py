"""Has the kernel take the memory of suspended sandboxes, where the host swaps.

It begins after a while, because a request that comes soon would have to wait for its pages. Without swap there is
nothing to gain: memory that can be dropped counts as free already.
"""

import asyncio
from asyncio.subprocess import DEVNULL
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from buntime.daemon.tasks import Tasks

AFTER = 60.0  # seconds of suspension
AT_ONCE = 1
SWAPS = Path("/proc/swaps")


def host_swaps() -> bool:
    return len(SWAPS.read_text().splitlines()) > 1  # the first line is a heading


class Reclaim:
    """For one sandbox. The command runs in its own process, because only killing a process makes the kernel stop at a
    thaw. A session at work would read its pages back as fast as they are taken."""

    def __init__(self, command: Sequence[str], places: asyncio.Semaphore, tasks: Tasks, after: float = AFTER) -> None:
        self._command = command
        self._after = after
        self._places = places
        self._tasks = tasks
        self._timer: asyncio.TimerHandle | None = None
        self._wanted = False
        self._process: asyncio.subprocess.Process | None = None

    def frozen(self) -> None:
        """Begins to reclaim after a while."""
        self.thawed()
        self._timer = asyncio.get_running_loop().call_later(self._after, self._begin)

    def thawed(self) -> None:
        """Stops reclaiming. Pages come back one by one as they are used. Idempotent."""
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
            if not self._wanted:
                return
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL
            )
            if not self._wanted:  # thawed while the process started
                self._process.kill()
            await self._process.wait()  # the exit code does not matter: the kernel took what it could
            self._process = None
