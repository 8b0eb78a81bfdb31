"""Implements `fleet.hosts.Hosts`, for a fleet and for the only host of a store."""

from collections import Counter
from collections.abc import Callable, Mapping

from buntime import __version__
from buntime.fleet.hosts import NO_SESSIONS, Host, Listing, Standing, count_standings, listing_of, standing_of
from buntime.fleet.members import Members, SessionCounts
from buntime.fleet.reporting import report_of
from buntime.ports import Sandboxes, Store
from buntime.session import State


class FleetHosts:
    def __init__(self, members: Members) -> None:
        self._members = members

    async def list(self) -> Listing:
        return listing_of(await self._members.list(), await self._members.count_sessions())

    async def standings(self) -> Mapping[Standing, int]:
        return count_standings(map(standing_of, await self._members.list()))


LOCAL = "local"  # the only host's id


class SoleHost:
    """The host of a store that is a file on it. `address`: where its edge listens."""

    def __init__(self, address: str, store: Store, sandboxes: Sandboxes, clock: Callable[[], float]) -> None:
        self._address = address
        self._store, self._sandboxes = store, sandboxes
        self._since = int(clock())

    async def standings(self) -> Mapping[Standing, int]:
        return count_standings([Standing.ACTIVE])

    async def list(self) -> Listing:
        sessions = await self._store.all_sessions()
        states = Counter(session.state for session in sessions)
        asleep = [session for session in sessions if session.state is State.DEEP_SLEEP]
        counts = SessionCounts(
            states[State.ACTIVE], states[State.IDLE], len(asleep), sum(not session.archived for session in asleep)
        )
        host = Host(
            id=LOCAL,
            standing=Standing.ACTIVE,
            is_draining=False,
            address=self._address,
            version=__version__,
            joined_at=self._since,
            lease=None,
            report=report_of(self._sandboxes),
            sessions=counts,
        )
        return Listing([host], NO_SESSIONS)
