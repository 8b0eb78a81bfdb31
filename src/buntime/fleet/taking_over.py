"""Takes over from hosts that are lost, so that others may claim what they had."""

from collections.abc import Callable, Sequence

from buntime.fleet.boot_clock import boot_seconds
from buntime.fleet.members import Member, Members, Membership
from buntime.fleet.sightings import Sightings


class TakingOver:
    """Make a new one after each join: a host that has lapsed has not looked for a while."""

    def __init__(
        self, members: Members, me: Membership, see: Callable[[Sequence[Member], float], None] = lambda *_: None
    ) -> None:
        """`see`: gets each list of all members, and when it was asked for, on CLOCK_BOOTTIME."""
        self._members, self._me, self._see = members, me, see
        self._sightings = Sightings()

    async def look(self) -> Sequence[Member]:
        """Call it each second. Returns the hosts that this call has taken over. Raises Fenced and Unavailable."""
        began = boot_seconds()
        every = await self._members.list()
        self._see(every, began)
        others = [each for each in every if each.id != self._me.host]
        quiet = self._sightings.look(others, boot_seconds())
        return [each for each in quiet if await self._members.take_over(self._me, each)]
