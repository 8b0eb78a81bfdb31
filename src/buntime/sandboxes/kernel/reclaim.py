"""Gives back the memory of suspended sandboxes, where the host swaps: `pageout.py` pushes it out.

It begins after a while, because a request that comes soon would have to wait for its pages. Without swap there is
nothing to gain: memory that can be dropped counts as free already.

One program pages out all sandboxes of the host, one at a time. To start it takes several times as long as its work for
one of them. It ends when it has had nothing to do for a while.
"""

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from contextvars import Context
from pathlib import Path

from buntime.daemon.tasks import Tasks
from buntime.plan import MB
from buntime.sandboxes.kernel import pageout
from buntime.sandboxes.kernel.cgroup import Cgroups
from buntime.sandboxes.kernel.transfer import ENDS_WITH_SERVER, GENTLY

AFTER = 60.0  # seconds of suspension
STAYS = 10.0  # seconds that the program waits for the next sandbox
SWAPS = Path("/proc/swaps")
LITTLE = 16 * MB  # in swap of an awake session: its limits may stay as they are
SOON, LATE = 0.2, 5.0  # seconds between looks at a session whose pages come back


def host_swaps() -> bool:
    return len(SWAPS.read_text().splitlines()) > 1  # the first line is a heading


def command() -> Sequence[str]:
    return [*ENDS_WITH_SERVER, *GENTLY, sys.executable, "-I", "-S", pageout.__file__]


def question(places: Iterable[Path]) -> bytes:
    """What the program reads for one sandbox. `places`: see `pageout`."""
    return b"\t".join(map(os.fsencode, places)) + b"\n"


class PageOut:
    """The program of a host."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self.turn = asyncio.Lock()  # held around `run`
        self._process: Process | None = None
        self._end: asyncio.TimerHandle | None = None
        self.is_closed = False

    async def run(self, places: Iterable[Path], is_wanted: Callable[[], bool]) -> None:
        """Pages out one sandbox, unless that is not wanted any more once the program runs. `places`: see `pageout`.
        Returns when the program has done what it could, or has ended. Raises OSError when it cannot be started."""
        self._stay()
        process = self._process or await self._started()
        if not is_wanted():
            return
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(question(places))
            is_done = await process.stdout.readline()
        except BaseException:
            self.kill()  # its answer would be taken for the next one's
            self._tasks.start(process.communicate(), "end of a page-out")
            raise
        if not is_done:
            self.kill()
        if self._process is not process:
            await process.communicate()

    async def _started(self) -> Process:
        self._process = await asyncio.create_subprocess_exec(*command(), stdin=PIPE, stdout=PIPE, stderr=DEVNULL)
        return self._process

    def kill(self) -> None:
        """While `run` is under way. The kernel stops at once, and the next run starts another program. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()

    def close(self) -> None:
        """The server stops. What waits for its turn is not paged out."""
        self.is_closed = True
        if self._end is not None:
            self._end.cancel()
        if self.turn.locked():
            self.kill()
        else:
            self._let_end()

    def _stay(self) -> None:
        if self._end is not None:
            self._end.cancel()
        self._end = asyncio.get_running_loop().call_later(STAYS, self._leave)

    def _leave(self) -> None:
        if self.turn.locked():
            self._stay()
        else:
            self._let_end()

    def _let_end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            self._tasks.start(process.communicate(), "end of the page-outs")  # which closes the program's input


class Reclaim:
    """For one sandbox. A thaw kills the program if it is at work for it: a session at work would read its pages back as
    fast as they are taken."""

    def __init__(
        self, sandbox: str, cgroups: Cgroups, pages: PageOut, tasks: Tasks, after: float | None = None
    ) -> None:
        self._sandbox = sandbox
        self._cgroups = cgroups
        self._after = AFTER if after is None else after
        self._pages = pages
        self._tasks = tasks
        self._timer: asyncio.TimerHandle | None = None
        self._wanted = False
        self._out = 0  # bytes in swap, when last seen
        self._is_at_work = False

    def frozen(self) -> None:
        """Begins to reclaim after a while."""
        self._stop()
        self._timer = asyncio.get_running_loop().call_later(self._after, self._begin, context=Context())

    def thawed(self) -> None:
        """Stops reclaiming. Pages come back one by one as they are used. Idempotent."""
        self._stop()
        if self._out > LITTLE:
            self._timer = asyncio.get_running_loop().call_later(SOON, self._look, SOON, context=Context())

    def _stop(self) -> None:
        self._wanted = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_at_work:
            self._pages.kill()

    def _begin(self) -> None:
        self._timer = None
        if host_swaps():
            self._wanted = True
            self._tasks.start(self._reclaim(), "reclaim")

    async def _reclaim(self) -> None:
        async with self._pages.turn:
            with suppress(OSError):  # it has ended, or the kernel takes no limit
                if self._wanted and not self._pages.is_closed and self._cgroups.lend_swap(self._sandbox):
                    self._is_at_work = True
                    try:
                        await self._pages.run(self._cgroups.pages_at(self._sandbox), lambda: self._wanted)
                    finally:
                        self._is_at_work = False
                        self._out = await asyncio.to_thread(self._cgroups.settle_swap, self._sandbox)

    def _look(self, wait: float) -> None:
        """Gives an awake session its memory limit back as its pages come back."""
        self._timer, before = None, self._out
        with suppress(OSError):  # it has ended
            self._out = self._cgroups.settle_swap(self._sandbox)
            if self._out > LITTLE:
                wait = SOON if self._out < before else min(2 * wait, LATE)
                self._timer = asyncio.get_running_loop().call_later(wait, self._look, wait)
