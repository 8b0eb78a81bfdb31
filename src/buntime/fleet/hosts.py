"""The hosts of an installation, as its operator sees them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from buntime.fleet.members import HostState, Member, SessionCounts
from buntime.fleet.report import Report, read


class Standing(StrEnum):
    ACTIVE = "active"
    DRAINING = "draining"  # it takes no new session, and gives up those that it has
    LOST = "lost"  # its lease is over: nobody hears from it
    LEFT = "left"  # it said that it goes


NOBODY = ""  # in place of a host's id
NO_SESSIONS = SessionCounts()


@dataclass(frozen=True, slots=True)
class LeaseTerm:
    """A host's lease, by the database's clock."""

    seconds_left: float  # 0: it is over
    incarnation: int
    renewals: int  # of this incarnation


@dataclass(frozen=True, slots=True)
class Host:
    id: str
    standing: Standing
    is_draining: bool  # marked so, also while it is lost or has left
    address: str  # where other hosts reach it
    version: str
    joined_at: int  # Unix seconds
    lease: LeaseTerm | None  # None: it needs none, as the only host
    report: Report | None  # None: it cannot be read
    sessions: SessionCounts
    drain_left: int | None = None  # seconds until a host that drains ends what is still awake; None: it does not drain


@dataclass(frozen=True, slots=True)
class Listing:
    hosts: Sequence[Host]  # all of the installation, by id
    nobody: SessionCounts  # sessions that a drain or a removal gave up, until a request claims them


class Hosts(Protocol):
    async def list(self) -> Listing:
        """Raises Unavailable."""
        ...

    async def standings(self) -> Mapping[Standing, int]:
        """How many hosts are in each state, for every state. Raises Unavailable."""
        ...


class Removal(StrEnum):
    """What came of a removal."""

    DONE = "done"
    UNKNOWN = "unknown"  # no host has this id
    RUNS = "runs"  # its lease runs
    HAS_SESSIONS = "has-sessions"  # whose newest files only this host has


class HostCommands(Protocol):
    """What the command line does with hosts, within one transaction that blocks."""

    def list(self) -> Listing: ...

    def mark(self, host: str, state: HostState, within: float) -> bool:
        """As `Members.mark`."""
        ...

    def remove(self, host: str, *, gives_up: bool) -> Removal:
        """Forgets a host whose lease is over. What it had is nobody's then. A host that comes back joins anew, and
        finds out what it has lost.

        `gives_up`: also sessions whose newest files only this host has. They stay in their state, and their account
        recovers them.
        """
        ...


def standing_of(member: Member) -> Standing:
    if member.has_left:
        return Standing.LEFT
    if member.taken_over or member.lease_left <= 0:
        return Standing.LOST
    return Standing.DRAINING if member.state is HostState.DRAINING else Standing.ACTIVE


def count_standings(standings: Iterable[Standing]) -> Mapping[Standing, int]:
    counted = Counter(standings)
    return {standing: counted[standing] for standing in Standing}


def listing_of(members: Sequence[Member], counts: Mapping[str, SessionCounts]) -> Listing:
    """`counts`: by host, as `Members.count_sessions` has them."""
    hosts = [_host(member, counts.get(member.id, NO_SESSIONS)) for member in members]
    return Listing(hosts, counts.get(NOBODY, NO_SESSIONS))


def _host(member: Member, sessions: SessionCounts) -> Host:
    left = member.drain_left
    return Host(
        id=member.id,
        standing=standing_of(member),
        is_draining=member.state is HostState.DRAINING,
        address=member.description.address,
        version=member.description.version,
        joined_at=int(member.joined_at),
        lease=LeaseTerm(round(max(0.0, member.lease_left), 1), member.incarnation, member.renewals),
        report=read(member.description.capacity),
        sessions=sessions,
        drain_left=None if left is None else max(0, round(left)),
    )
