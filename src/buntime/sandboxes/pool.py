"""Sandboxes that are started ahead and *parked*, so that a claim need not wait for a start."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import nullcontext
from itertools import islice
from typing import Any

import structlog

from buntime.daemon.tasks import Tasks
from buntime.errors import BuntimeError, Unavailable
from buntime.ports import SandboxGone
from buntime.sandboxes.line import LONGEST_WAIT, Line
from buntime.sandboxes.machinery import Rush
from buntime.sandboxes.sandbox import LocalSandbox

log = structlog.get_logger()

# Without a claim before the pool is filled, so that a burst of claims has the host to itself: as it is, and while many
# runs are under way, mostly the first ones of what was claimed. Claims that follow each other still come first when few
# are parked, but then nothing waits for long.
QUIET_SECONDS, BUSY_QUIET_SECONDS = 0.25, 1.0
LOW_QUIET_SECONDS, LOW_BUSY_QUIET_SECONDS = 0.05, 0.25
REST_SECONDS = 0.02
PREPARE_SECONDS = 0.05  # between two starts of Bun, each of which takes a third of that on one core
RETRY_SECONDS = 5
COUNTED = 4  # parked sandboxes, the next to be claimed, whose first run has a memory cgroup already


class Pool:
    """Starts and destroys sandboxes by the callbacks. `require_room` raises Unavailable when the host is full."""

    def __init__(
        self,
        size: int,
        prepared: int,
        tasks: Tasks,
        rush: Rush,
        *,
        require_room: Callable[[], None],
        start: Callable[[], Awaitable[LocalSandbox]],
        destroy: Callable[[str], Coroutine[Any, Any, None]],
        is_busy: Callable[[], bool],
    ) -> None:
        self._size = size
        self._most_prepared = prepared
        self._tasks = tasks
        self._require_room = require_room
        self._start = start
        self._destroy = destroy
        self._is_busy = is_busy
        self._parked: deque[LocalSandbox] = deque()
        self._rush = rush
        self._claimed = asyncio.Event()
        self._line = Line()  # claims that found nothing parked
        self._is_closed = False
        self.claims = self.misses = 0  # since the start

    def __iter__(self) -> Iterator[LocalSandbox]:
        return iter(self._parked)

    def __len__(self) -> int:
        return len(self._parked)

    @property
    def size(self) -> int:
        """How many are parked when the pool is full."""
        return self._size

    @property
    def is_full(self) -> bool:
        return len(self._parked) >= self._size

    @property
    def ids(self) -> set[str]:
        return {sandbox.id for sandbox in self._parked}

    def is_quiet(self, *, low: bool = False) -> bool:
        """Whether no burst of claims goes on, nor of their first runs. `low`: few are parked."""
        as_it_is, busy = (LOW_QUIET_SECONDS, LOW_BUSY_QUIET_SECONDS) if low else (QUIET_SECONDS, BUSY_QUIET_SECONDS)
        return self._rush.seconds_since() > (busy if self._is_busy() else as_it_is)

    async def take(self) -> LocalSandbox:
        """A parked sandbox, or a new one when none is parked. Raises Unavailable."""
        if parked := self.take_parked():
            return parked
        self._line.require()
        return await self._started_in_time()

    def take_parked(self, *, bare: bool = False) -> LocalSandbox | None:
        """A parked sandbox, or None when none is parked. `bare`: rather one in which no Bun has started."""
        self._rush.note_claim()
        self._claimed.set()
        self.claims += 1
        parked = self._alive(bare)
        self.misses += parked is None
        self._count_next(parked)
        return parked

    def _count_next(self, taken: LocalSandbox | None = None) -> None:
        """Memory cgroups are for those that need them soon: each costs the kernel memory for each file system."""
        for sandbox in filter(None, (taken, *islice(self._parked, COUNTED))):
            if not sandbox.has_counted_spare:
                self._tasks.start(sandbox.count_spare(), f"count the spare of {sandbox.id}")

    def _alive(self, last: bool) -> LocalSandbox | None:
        while self._parked:
            sandbox = self._parked.pop() if last else self._parked.popleft()
            if sandbox.is_alive():
                return sandbox
            self._tasks.start(self._give_back(sandbox), f"destroy {sandbox.id}")
        return None

    async def started(self, start: Callable[[], Awaitable[LocalSandbox]], *, waits: bool) -> LocalSandbox:
        """For a claim that found nothing parked: starts a sandbox at once. Raises Unavailable.

        `waits`: the pool waits meanwhile. Not for a start that files of a session can make slow.
        """
        with self._line.place() if waits else nullcontext():
            sandbox = await start()
        self._keep_spare(sandbox)
        return sandbox

    def _keep_spare(self, sandbox: LocalSandbox) -> None:
        self._tasks.start(sandbox.keep_spare(), f"first spare for {sandbox.id}")

    async def _started_in_time(self) -> LocalSandbox:
        """The same for a sandbox that any claim may have. If this one waits too long or leaves, it is parked for
        another."""
        claim: asyncio.Future[LocalSandbox] = asyncio.get_running_loop().create_future()
        self._tasks.start(self._start_for(claim), "start for a claim")
        try:
            async with asyncio.timeout(LONGEST_WAIT):
                sandbox = await claim
        except BaseException as failed:
            if not claim.cancel() and not claim.cancelled() and claim.exception() is None:  # it came just now
                self._tasks.start(self._add_late(claim.result()), "park a late start")
            if isinstance(failed, TimeoutError):
                raise self._line.refusal() from failed
            raise
        self._keep_spare(sandbox)
        return sandbox

    async def _start_for(self, claim: asyncio.Future[LocalSandbox]) -> None:
        try:
            with self._line.place():
                sandbox = await self._start()
        except Exception as failed:
            if not claim.done():
                claim.set_exception(failed)
            elif not isinstance(failed, Unavailable):  # that is in the log
                raise
            return
        except BaseException:
            claim.cancel()
            raise
        if claim.done():
            await self._add_late(sandbox)
        else:
            claim.set_result(sandbox)

    async def _add_late(self, sandbox: LocalSandbox) -> None:
        try:
            if self.is_full:
                await self._give_back(sandbox)
            else:
                await self._park(sandbox)
        except Unavailable as failed:
            log.warning("late_sandbox_not_parked", sandbox=sandbox.id, reason=str(failed))

    async def _park(self, sandbox: LocalSandbox) -> None:
        """Adds a sandbox that has just started. Raises Unavailable, and then leaves nothing of it."""
        try:
            await sandbox.park()
        except (SandboxGone, BuntimeError, OSError) as failed:
            await self._give_back(sandbox)
            raise Unavailable("A parked sandbox failed.") from failed
        if self._is_closed:
            await self._give_back(sandbox)
        else:
            self.add(sandbox)

    async def _give_back(self, sandbox: LocalSandbox) -> None:
        await sandbox.kill()  # `destroy` does not know it, and would leave its files open
        await self._destroy(sandbox.id)

    def add(self, sandbox: LocalSandbox) -> None:
        self._parked.append(sandbox)
        self._count_next()

    def empty(self) -> list[LocalSandbox]:
        """Takes out all parked sandboxes. None is parked any more."""
        self._is_closed = True
        parked, self._parked = list(self._parked), deque()
        return parked

    async def keep(self) -> None:
        """Fills the pool forever, one sandbox at a time, and pauses while claims come in. Then starts Bun in some."""
        while True:
            self._claimed.clear()
            try:
                await self._fill()
                await self._prepare()
            except (Unavailable, OSError) as failed:
                log.warning("pool_not_filled", reason=str(failed))
                await asyncio.sleep(RETRY_SECONDS)
            await self._claimed.wait()

    async def _fill(self) -> None:
        while not self.is_full and not self._is_closed:
            if not self._has_time():
                await asyncio.sleep(REST_SECONDS)
                continue
            self._require_room()
            await self._park(await self._start())

    async def _prepare(self) -> None:
        """Has a Bun started in the sandboxes that are claimed next, as long as the pool is full."""
        tried = set[str]()
        while self.is_full:
            ahead = islice(self._parked, self._most_prepared)
            bare = next((box for box in ahead if not box.is_prepared and box.id not in tried), None)
            if bare is None:
                return
            if not self._has_time():
                await asyncio.sleep(REST_SECONDS)
                continue
            self._require_room()
            tried.add(bare.id)
            await bare.prepare()
            await asyncio.sleep(PREPARE_SECONDS)

    def _has_time(self) -> bool:
        low = len(self._parked) < self._size // 4
        return not self._line.waiting and self.is_quiet(low=low)
