"""The one host of a store that is a file on it: it owns every session, and asks nobody."""

from collections.abc import Callable, Sequence

from buntime.ports import Peer
from buntime.session import Session

LOCAL = "local"  # the owner in each row


class SoleOwner:
    """Implements `ports.Owners`."""

    host = LOCAL
    is_alone = True

    def may_act(self) -> bool:
        return True

    def standing(self) -> Callable[[], bool]:
        return self.may_act

    def has_duty(self) -> bool:
        return True

    def is_mine(self, session: Session) -> bool:
        return True

    async def here(self, session: Session) -> Session:
        return session

    async def take(self, session: Session) -> Session:
        return session

    def steady(self, peer: Peer) -> int | None:
        return None

    async def candidates(self, image: str) -> Sequence[Peer | None]:
        return (None,)
