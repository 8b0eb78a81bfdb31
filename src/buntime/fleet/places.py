"""What accounts have open on all hosts, in the database.

A host reserves a place there before it opens something, in one transaction with a look at what the other hosts have. So
the hosts together never exceed a limit. What ends is told every two seconds. Until then, its place counts as taken on
other hosts.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from buntime.daemon.batches import Batches
from buntime.errors import MayNotAct, Unavailable
from buntime.fleet.members import Fenced, Membership
from buntime.places import Counts

log = structlog.get_logger(__name__)

REFRESH_SECONDS = 2.0
UNKNOWN = -1  # what the database has, after a change that may have been lost


type Count = Callable[[], Awaitable[Callable[[], Counts]]]


class PlaceRows(Protocol):
    """One suite runs against the fake and PostgreSQL. Each raises MayNotAct and Unavailable."""

    async def take_places(self, account: str, kind: str, limit: int, used: int, number: int) -> int:
        """Notes that this host has `used`, and reserves up to `number` more. Returns how many: no more than the limit
        leaves, with what the other members have."""
        ...

    async def set_places(self, counts: Counts) -> None:
        """Notes what this host has, of these. Forgets where it has nothing, and what an earlier incarnation noted."""
        ...


@dataclass(frozen=True, slots=True)
class _Asked:
    account: str
    kind: str
    limit: int
    used: Callable[[], int]


class FleetPlaces:
    """Implements `places.Places`. `membership`: see `Holding`."""

    def __init__(self, rows: PlaceRows, membership: Callable[[], Membership]) -> None:
        self._rows, self._membership = rows, membership
        self._noted_as: Membership | None = None
        self._noted: dict[tuple[str, str], int] = {}  # what the database has of this host
        self._noting = asyncio.Lock()  # a count that was taken before another one must not be noted after it
        self._takes = Batches(self._take_all, "places of accounts")

    async def take(self, account: str, kind: str, limit: int, used: Callable[[], int]) -> bool:
        try:
            return await self._takes.ask(_Asked(account, kind, limit, used))
        except MayNotAct:  # which all who wait share, as the other one
            raise MayNotAct from None
        except Unavailable as failure:
            raise Unavailable(failure.message, 1) from None

    async def refresh(self, count: Count) -> None:
        """Tells what this host has now, so that what has ended is free for other hosts. Raises Fenced and Unavailable.

        `count`: finds all that has to be counted, and returns what counts it without a wait.
        """
        async with self._noting:
            me = self._membership()
            if me != self._noted_as:  # what an earlier incarnation has noted counts no more
                self._noted, self._noted_as = {}, me
            counts = (await count())()
            there = {name: number for name, number in counts.items() if number}
            changed = dict.fromkeys(self._noted.keys() - there.keys(), 0)
            changed |= {name: number for name, number in there.items() if number != self._noted.get(name)}
            self._noted |= dict.fromkeys(changed, UNKNOWN)
            if changed:
                await self._rows.set_places(changed)
            self._noted = there

    async def keep(self, count: Count) -> None:
        """For ever."""
        looked = False
        while True:
            try:
                if not looked:  # at the start that may wait long, while others take places
                    await count()
                    looked = True
                await self.refresh(count)
            except (Fenced, MayNotAct):
                pass  # the host is silent, and begins anew when it joins
            except Unavailable as failure:
                log.warning("places_not_told", reason=failure.message)
            await asyncio.sleep(REFRESH_SECONDS)

    async def _take_all(self, asked: Sequence[_Asked]) -> Sequence[bool]:
        alike: dict[tuple[str, str], list[int]] = defaultdict(list)
        for number, each in enumerate(asked):
            alike[each.account, each.kind].append(number)
        taken = [False] * len(asked)
        async with self._noting:
            for (account, kind), numbers in alike.items():
                newest, waiting = asked[numbers[-1]], len(numbers)
                used = max(0, newest.used() - waiting)
                self._noted[account, kind] = UNKNOWN
                got = await self._rows.take_places(account, kind, newest.limit, used, waiting)
                self._noted[account, kind] = used + got
                for number in numbers[:got]:
                    taken[number] = True
        return taken
