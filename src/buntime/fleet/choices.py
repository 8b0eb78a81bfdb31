"""Which hosts there are, from a list that is at most some seconds old: a create may go to them, and one of them counts
the small keys of an account. A request asks nobody for that."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from random import Random

from buntime.errors import Unavailable
from buntime.fleet.boot_clock import boot_seconds
from buntime.fleet.choosing import Rated, candidates, rated
from buntime.fleet.homes import Homes
from buntime.fleet.members import Members
from buntime.fleet.neighbours import Neighbours, neighbours, steady
from buntime.ports import Peer

LOOK_SECONDS = 1.0
FRESH_SECONDS = 2.0  # for which a look tells that a host keeps its sessions


class Choices:
    """`host`: the id of this one."""

    def __init__(self, host: str, members: Members, random: Random | None = None) -> None:
        self._host, self._members = host, members
        self._random = random or Random()
        self._hosts: Sequence[Rated] = ()
        self.neighbours = Neighbours()  # as of the last look
        self._steady: Mapping[Peer, int] = {}  # hosts that keep their sessions → incarnation, as of the last look
        self._looked = -math.inf  # when the last look began, on CLOCK_BOOTTIME
        self.homes = Homes(host)

    async def keep(self) -> None:
        """For ever: looks at the hosts each second. While the database is away, the last list holds."""
        while True:
            with suppress(Unavailable):
                await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Raises Unavailable."""
        began = boot_seconds()
        members = await self._members.list()
        self._hosts, self.neighbours = rated(members), neighbours(members, self._host)
        self._steady, self._looked = steady(members), began
        self.homes.see([Peer(each.id, each.address) for each in self._hosts])

    def steady(self, peer: Peer) -> int | None:
        """See `ports.Owners.steady`. Reads memory only."""
        return self._steady.get(peer) if boot_seconds() - self._looked < FRESH_SECONDS else None

    def of(self, image: str) -> Sequence[Rated]:
        """For a session on this image ("": the default one), the best host first; see `choosing.candidates`. Empty
        before the first look. Reads memory only."""
        return candidates(self._hosts, image, self._host, self._random)
