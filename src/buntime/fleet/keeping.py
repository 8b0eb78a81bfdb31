"""What a member does each second: takes over from lost hosts, and does what one host does for all."""

import asyncio
import time
from collections.abc import Callable

import structlog

from buntime.errors import Unavailable
from buntime.fleet.budget import BUDGET
from buntime.fleet.members import Fenced, Members, Membership
from buntime.fleet.owners import FleetOwners
from buntime.fleet.rows import Rows
from buntime.fleet.taking_over import TakingOver
from buntime.ids import new_volume_id

log = structlog.get_logger(__name__)

DROP_SECONDS = 60.0  # between two looks for counts that are over
STRAYS_AT_ONCE = 20  # sessions of lost hosts that end, in one look
STRAYS_SECONDS = 5.0  # between two looks for them, each of which reads all sessions of nobody


class Keeping:
    """`membership`: see `Holding`. `clock`: Unix seconds."""

    def __init__(
        self,
        members: Members,
        rows: Rows,
        membership: Callable[[], Membership],
        owners: FleetOwners,
        clock: Callable[[], float],
    ) -> None:
        self._members, self._rows, self._membership = members, rows, membership
        self._owners, self._clock = owners, clock
        self._drops_at = 0.0  # by the monotonic clock
        self._looking: tuple[Membership, TakingOver] | None = None
        self._strays_at = 0.0  # when they are looked for next, on the monotonic clock

    async def run(self) -> None:
        """For ever. What it could not do because the database was away, a later look does."""
        while True:
            try:
                await self.look()
            except Fenced:
                self._looking, self._owners.on_duty = None, False
            except Unavailable as failed:
                log.warning("hosts_not_looked_at", reason=failed.message)
            await asyncio.sleep(BUDGET.renew)

    async def look(self) -> None:
        """Once. Raises Fenced and Unavailable."""
        me = self._membership()
        if self._looking is None or self._looking[0] != me:
            self._looking = me, TakingOver(self._members, me, self._owners.see)
        for lost in await self._looking[1].look():
            log.warning("host_taken_over", host=lost.id, incarnation=lost.incarnation)
        self._owners.on_duty = await self._rows.take_duty()
        if self._owners.has_duty():
            await self._end_strays()
            await self._drop_counted()

    async def _end_strays(self) -> None:
        """Makes this host the owner of sessions that must end, and that nobody else can end. The keeper ends them."""
        now = time.monotonic()
        if now < self._strays_at:
            return
        found = await self._rows.strays(int(self._clock()), STRAYS_AT_ONCE)
        self._strays_at = now + (STRAYS_SECONDS if len(found) < STRAYS_AT_ONCE else 0.0)
        for session_id in found:
            await self._rows.take(session_id, new_volume_id())

    async def _drop_counted(self) -> None:
        now = time.monotonic()
        if now >= self._drops_at:
            self._drops_at = now + DROP_SECONDS
            await self._rows.drop_counted()
