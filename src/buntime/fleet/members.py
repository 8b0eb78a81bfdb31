"""The hosts of a fleet, as all of them see each other. One suite in `tests/contracts` runs against the fake (in
`testing/`) and PostgreSQL.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol

NO_CAPACITY: Mapping[str, object] = MappingProxyType({})


DRAIN_SECONDS = 300.0


class HostState(StrEnum):
    ACTIVE = "active"
    DRAINING = "draining"  # takes no new session, and gives up those that it has


@dataclass(frozen=True, slots=True)
class Membership:
    """What a host names in everything that it asks for as a member."""

    host: str
    incarnation: int  # grows when the host joins, leaves, or is taken over


@dataclass(frozen=True, slots=True)
class Description:
    """What a host says of itself when it joins."""

    address: str  # where the other hosts reach it
    version: str
    capacity: Mapping[str, object] = field(default=NO_CAPACITY)  # JSON


@dataclass(frozen=True, slots=True)
class Member:
    """A host, as the database has it."""

    id: str
    incarnation: int
    renewals: int  # of this incarnation
    lease_left: float  # seconds by the database's clock; 0 or less: it is over
    taken_over: bool  # or it has left: others may claim what it had, until it joins again
    state: HostState
    description: Description
    joined_at: float = 0.0  # when it joined last, in Unix seconds
    has_left: bool = False  # it gave up its lease itself: `taken_over` too
    drain_left: float | None = None  # seconds until a host that drains ends what is awake. None: it does not drain


@dataclass(frozen=True, slots=True)
class SessionCounts:
    """Sessions of one host, without those that are being deleted."""

    active: int = 0
    idle: int = 0
    asleep: int = 0  # in deep sleep
    unsaved: int = 0  # of these, the ones whose newest files only this host has

    @property
    def every(self) -> int:
        return self.active + self.idle + self.asleep

    @property
    def bound(self) -> int:
        """Those that no other host can wake with all their files."""
        return self.active + self.idle + self.unsaved


class Fenced(Exception):
    """This incarnation of the host, or its lease, is over. The host must be silent, and join anew."""


class IdTaken(Exception):
    """A host with this id runs at another address. A copied data directory must not push its original out."""


class OutOfDate(Exception):
    """A newer version has changed the database, so that hosts of this version must not use it any more."""


class Members(Protocol):
    """Times are the database's; no method takes one. Each method is one transaction, and raises Unavailable when nobody
    knows whether it was made. A method that takes a membership raises Fenced unless its lease runs."""

    async def join(self, host: str, description: Description, after: int = 0) -> Membership:
        """Begins a lease with a new incarnation. Keeps the state that the host had.

        `after`: the newest incarnation that the host knows of. A database that was restored may have forgotten it.
        Raises IdTaken while the lease of this host runs at another address, and OutOfDate.
        """
        ...

    async def renew(self, me: Membership, capacity: Mapping[str, object]) -> HostState:
        """Begins the lease anew, and counts. A lease that is over is never renewed. Raises Fenced."""
        ...

    async def leave(self, me: Membership) -> None:
        """Ends the lease at once, and lets others claim what the host had. Call it when the host is silent. Raises
        Fenced."""
        ...

    async def take_over(self, me: Membership, lost: Member) -> bool:
        """Raises the incarnation of a host whose lease is over, so that others may claim what it had.

        `lost`: as the caller has seen it for a whole lease of its own clock (see `Sightings`). Returns False, and
        changes nothing, where it is not like that any more, or its lease runs. A lease that would end later than one
        that begins now was written before the database's clock was set back. It counts as over. Raises Fenced.
        """
        ...

    async def now(self) -> float:
        """The database's clock, in Unix seconds."""
        ...

    async def list(self) -> Sequence[Member]:
        """All that ever joined, by id."""
        ...

    async def mark(self, host: str, state: HostState, within: float = DRAIN_SECONDS) -> bool:
        """Returns False where there is no such host. `within`: seconds from now, after which a host that drains ends
        what is still awake."""
        ...

    async def count_sessions(self) -> Mapping[str, SessionCounts]:
        """What each host has, by its id. "": sessions of nobody."""
        ...
