"""A fake of the places that accounts have on the hosts of a fleet, in memory."""

from collections.abc import Callable

from buntime.errors import MayNotAct, Unavailable
from buntime.fleet.members import Fenced, Membership
from buntime.places import Counts


class FakePlaces:
    """The rows of all hosts. `members`: the incarnation of each host that nobody has taken over from."""

    def __init__(self) -> None:
        self.members: dict[str, int] = {}
        self.used: dict[tuple[str, str, str], tuple[int, int]] = {}  # account, kind, host → incarnation, number
        self.is_away = False


class FakePlaceRows:
    """`fleet.places.PlaceRows` of one host."""

    def __init__(self, places: FakePlaces, membership: Callable[[], Membership]) -> None:
        self._places, self._membership = places, membership

    async def take_places(self, account: str, kind: str, limit: int, used: int, number: int) -> int:
        me, places = self._me(), self._places
        elsewhere = sum(
            many
            for (whose, what, host), (incarnation, many) in places.used.items()
            if (whose, what) == (account, kind) and host != me.host and places.members.get(host) == incarnation
        )
        got = min(number, max(0, limit - elsewhere - used))
        places.used[account, kind, me.host] = me.incarnation, used + got
        return got

    async def set_places(self, counts: Counts) -> None:
        me, rows = self._me(), self._places.used
        for (account, kind), number in counts.items():
            rows[account, kind, me.host] = me.incarnation, number
        over = [
            name
            for name, (incarnation, number) in rows.items()
            if name[2] == me.host and (not number or incarnation < me.incarnation)
        ]
        for name in over:
            del rows[name]

    def _me(self) -> Membership:
        if self._places.is_away:
            raise Unavailable("The database is away.", 1)
        try:
            me = self._membership()
        except Fenced:
            raise MayNotAct from None
        if self._places.members.get(me.host) != me.incarnation:
            raise MayNotAct
        return me
