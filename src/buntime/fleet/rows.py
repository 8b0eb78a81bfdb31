"""What the fleet asks of the store. The suite of the store in PostgreSQL is its contract's."""

from collections.abc import Collection, Sequence
from typing import Protocol

from buntime.fleet.members import Membership
from buntime.fleet.ownership import Left, Ownership, Whereabouts
from buntime.session import Session
from buntime.snapshot import Layer, Snapshot


class Rows(Protocol):
    """Each change is one transaction of this host as a member. It raises MayNotAct where the host is none, and
    Unavailable where the database is away."""

    @property
    def host(self) -> str:
        """The id of this host."""
        ...

    async def get_session(self, session_id: str) -> Session | None:
        """See `ports.Store`."""
        ...

    async def whereabouts(self, session_id: str) -> Whereabouts | None:
        """None where there is no such session."""
        ...

    async def claim(self, session_id: str, volume: str) -> Session | None:
        """Makes this host the owner of a session whose files are in the archive, with a new epoch and `volume`, a new
        id. None, with nothing changed, where another host owns it or its newest files."""
        ...

    async def take(self, session_id: str, volume: str) -> Session | None:
        """The same for a session in any state whose host is lost. None where it is not."""
        ...

    async def report(self, me: Membership, held: Collection[str]) -> Sequence[Ownership]:
        """The rows of all these sessions, and of those that should be awake on this host. Asked before the host acts,
        so it names the member. Raises Fenced."""
        ...

    async def adopt(self, me: Membership) -> int:
        """Makes this host the owner of what a server had that used the database alone. Only the host that has its files
        may ask. Returns how many sessions. Asked before the host acts, too. Raises Fenced."""
        ...

    async def strays(self, now: int, most: int) -> Sequence[str]:
        """Ids of sessions of nobody, or of lost hosts, that have expired (Unix seconds, and by the database's clock),
        are being deleted, or whose account is."""
        ...

    async def take_duty(self) -> bool:
        """Whether this host does what one host does for all. It takes the duty where no member has it."""
        ...

    async def drop_counted(self) -> None:
        """Forgets what was counted in minutes that are over, and what hosts had that were removed."""
        ...

    async def left_behind(self) -> Sequence[Left]:
        """What this host may still have of sessions that moved."""
        ...

    async def keep_aside(self, left: Left, snapshot: Snapshot, layer: Layer) -> bool:
        """Stores what was left as a snapshot for the account. False, with nothing changed, where that was done."""
        ...

    async def forget_left(self, left: Left) -> None:
        """This host has nothing of it any more. Idempotent."""
        ...
