"""Holds the lease of this host, and silences the host whenever it has none.

    join ─► compare ─► show the watchdog ─► it watches ─► thaw, open ─► renew, show, open for longer ─┐
      ▲                                                                                                │
      └── close, freeze ◄── 4 s without a renewal, or the database or the watchdog says that it is over ┘

No step waits for an answer of the database beyond the end of the lease: each question is a task of its own.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import structlog

from buntime.errors import Unavailable
from buntime.fleet.boot_clock import boot_seconds
from buntime.fleet.budget import BUDGET
from buntime.fleet.fence import Fence
from buntime.fleet.guard import Guard
from buntime.fleet.lease import Lease, Phase
from buntime.fleet.lease_file import LeaseFile, Shown
from buntime.fleet.members import Description, Fenced, HostState, IdTaken, Members, Membership, OutOfDate

log = structlog.get_logger(__name__)

SPREAD = 0.5, 1.5  # of the pause between two joins
AT_ONCE = 4  # questions to the database that wait for an answer

Compare = Callable[[Membership], Awaitable[None]]


class Holding:
    """`compare`: gives up what the host has lost, by `ownership.compare`. It is called after each join, while all is
    frozen. `capacity`: what the host reports of itself, as JSON."""

    def __init__(
        self,
        members: Members,
        host: str,
        description: Description,
        guard: Guard,
        file: LeaseFile,
        fence: Fence,
        compare: Compare,
        capacity: Callable[[], Mapping[str, object]],
    ) -> None:
        self._members, self._host, self._description = members, host, description
        self._guard, self._file, self._fence = guard, file, fence
        self._compare, self._capacity = compare, capacity
        self._lease = Lease()
        self._asked = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fence")  # its calls come in the order of decisions
        self.state = HostState.ACTIVE
        self.renewals = self.fences = 0  # since the start

    def report(self, capacity: Callable[[], Mapping[str, object]]) -> None:
        """What each renewal reports from now on, as JSON."""
        self._capacity = capacity

    @property
    def seconds_left(self) -> float:
        """Until this host fences itself; 0 where it may not act."""
        return max(0.0, self._lease.until - boot_seconds()) if self.may_act() else 0.0

    def may_act(self) -> bool:
        """Whether this host may acknowledge anything now. Ask again after each wait."""
        return self._lease.may_act(boot_seconds())

    @property
    def incarnation(self) -> int:
        """The newest that this host has had."""
        return self._lease.incarnation

    @property
    def membership(self) -> Membership:
        """What every write names. Raises Fenced where the host may not act."""
        if not self.may_act():
            raise Fenced
        return Membership(self._host, self._lease.incarnation)

    async def run(self) -> None:
        """Until cancelled. Then sessions go on until the lease ends, for a server that starts before that."""
        try:
            await self._in_thread(self._fence.prepare)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._guard.run(), name="watchdog")
                while True:
                    await self._tick(group)
                    left = self._lease.until - boot_seconds()
                    # hosts that lost the database at the same moment do not all come back at the same one
                    pause = BUDGET.renew * random.uniform(*SPREAD) if left <= 0 else min(BUDGET.renew, left)
                    await asyncio.sleep(pause)
        finally:
            self._lease = self._lease.refused(self._lease.incarnation)
            self._thread.shutdown(cancel_futures=True)

    async def _tick(self, group: asyncio.TaskGroup) -> None:
        was, lease = self._lease, self._lease.at(boot_seconds())
        if self._guard.has_fenced(lease.incarnation):  # this process was stopped
            lease = lease.refused(lease.incarnation)
        self._lease = lease
        if lease.phase is Phase.OUT and was.phase is not Phase.OUT:
            await self._silence()
        if self._asked < AT_ONCE:
            asking = self._join(group) if lease.phase is Phase.OUT else self._renew(lease.incarnation)
            group.create_task(self._asking(asking), name="lease")

    async def _asking(self, asking: Awaitable[None]) -> None:
        self._asked += 1
        try:
            with suppress(Unavailable, TimeoutError):
                async with asyncio.timeout(BUDGET.fence):  # what is answered later counts for nothing
                    await asking
        finally:
            self._asked -= 1

    async def _renew(self, incarnation: int) -> None:
        sent = boot_seconds()
        try:
            self.state = await self._members.renew(Membership(self._host, incarnation), self._capacity())
        except Fenced:
            await self._refuse(incarnation)
            return
        if self._lease.phase is Phase.HOLDING and not self._guard.watches(incarnation):
            return  # no second more without a watchdog
        self._lease = self._lease.renewed(incarnation, sent, boot_seconds())
        self.renewals += 1
        await self._show(incarnation)

    async def _join(self, group: asyncio.TaskGroup) -> None:
        sent = boot_seconds()
        try:
            me = await self._members.join(self._host, self._description, after=self._file.newest())
        except IdTaken:
            log.error("host_id_taken", host=self._host)
            return
        except OutOfDate:
            log.error("host_out_of_date", host=self._host)
            return
        self._lease = self._lease.joined(me.incarnation, sent, boot_seconds())
        if self._compares(me.incarnation):
            log.info("host_joined", host=self._host, incarnation=me.incarnation)
            await self._show(me.incarnation)
            group.create_task(self._begin(me), name="comparison of epochs")

    async def _begin(self, me: Membership) -> None:
        """Compares, until it has worked or the lease is over, and then lifts the fence. Nothing is lifted that no
        watchdog would close."""
        while self._compares(me.incarnation):
            try:
                await self._compare(me)
                break
            except Unavailable:
                await asyncio.sleep(BUDGET.renew)
            except Fenced:
                await self._refuse(me.incarnation)
        await self._guard.until_it_watches(me.incarnation, lambda: self._compares(me.incarnation))
        if self._compares(me.incarnation):
            self._lease = self._lease.compared(me.incarnation, boot_seconds())
            await self._in_thread(self._fence.thaw)
            await self._show(me.incarnation)

    def _compares(self, incarnation: int) -> bool:
        lease = self._lease.at(boot_seconds())
        return lease.phase is Phase.COMPARING and lease.incarnation == incarnation

    async def _show(self, incarnation: int) -> None:
        """Tells the watchdog and the kernel until when this host may act."""
        lease = self._lease
        if lease.phase is Phase.OUT or lease.incarnation != incarnation:
            return
        self._file.show(Shown(incarnation, lease.until))
        if lease.phase is Phase.HOLDING:
            await self._in_thread(lambda: self._open_until(lease.until))

    async def _refuse(self, incarnation: int) -> None:
        was, self._lease = self._lease, self._lease.refused(incarnation)
        if self._lease is not was and was.phase is not Phase.OUT:
            await self._silence()

    async def _silence(self) -> None:
        self.fences += 1
        log.warning("host_fenced", host=self._host, incarnation=self._lease.incarnation)
        await self._in_thread(self._fence.close)

    def _open_until(self, until: float) -> None:
        seconds = until - boot_seconds()
        if seconds > 0:
            self._fence.extend(seconds)

    async def _in_thread(self, work: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, work)
