"""Which hosts there are, from a list that is at most some seconds old: a create may go to them, and one of them counts
the small keys of an account. A request asks nobody for that."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from random import Random

from buntime.errors import Unavailable
from buntime.fleet.boot_clock import boot_seconds
from buntime.fleet.choosing import Rated, candidates, is_leased, rated
from buntime.fleet.homes import Homes
from buntime.fleet.members import Member, Members
from buntime.fleet.neighbours import Neighbours, neighbours, steady
from buntime.ports import Peer

OWN_LOOK_SECONDS = 1.5  # without a look of `Keeping`, after which this one looks for itself
PAUSE_SECONDS = 0.5  # after one that failed
FRESH_SECONDS = 2.0  # for which a look tells that a host keeps its sessions


class Choices:
    """`host`: the id of this one. `Keeping` looks at the hosts each second, and tells what it saw: see `see`."""

    def __init__(self, host: str, members: Members, random: Random | None = None) -> None:
        self._host, self._members = host, members
        self._random = random or Random()
        self._seen: Sequence[Member] = ()
        self._rated: Sequence[Rated] | None = None  # of these; None: nobody has asked yet
        self.neighbours = Neighbours()  # as of the last look
        self._steady: Mapping[Peer, int] = {}  # hosts that keep their sessions → incarnation, as of the last look
        self._looked = -math.inf  # when the last look began, on CLOCK_BOOTTIME
        self.homes = Homes(host)

    async def keep(self) -> None:
        """For ever: looks at the hosts while `Keeping` does not, as when this host has lapsed. While the database is
        away, the last list holds."""
        while True:
            if (left := self._looked + OWN_LOOK_SECONDS - boot_seconds()) > 0:
                await asyncio.sleep(left)
                continue
            with suppress(Unavailable):
                await self.look()
            await asyncio.sleep(PAUSE_SECONDS)

    async def look(self) -> None:
        """Raises Unavailable."""
        began = boot_seconds()
        self.see(await self._members.list(), began)

    def see(self, members: Sequence[Member], began: float) -> None:
        """A list of all members. `began`: when it was asked for, on CLOCK_BOOTTIME."""
        if began < self._looked:
            return
        self._seen, self._rated = members, None
        self.neighbours, self._steady, self._looked = neighbours(members, self._host), steady(members), began
        self.homes.see([Peer(each.id, each.description.address) for each in members if is_leased(each)])

    def steady(self, peer: Peer) -> int | None:
        """See `ports.Owners.steady`. Reads memory only."""
        return self._steady.get(peer) if boot_seconds() - self._looked < FRESH_SECONDS else None

    def of(self, image: str) -> Sequence[Rated]:
        """For a session on this image ("": the default one), the best host first; see `choosing.candidates`. Empty
        before the first look. Reads memory only."""
        if self._rated is None:
            self._rated = rated(self._seen)
        return candidates(self._rated, image, self._host, self._random)
