"""A fake of the hosts of a fleet, for tests."""

from collections.abc import Callable, Sequence

from buntime.errors import MayNotAct, Unavailable
from buntime.ports import AnotherHost, Peer
from buntime.session import Session


class FakeOwners:
    """`ports.Owners` of the host "local", which has every session but those in `elsewhere` and `lost`."""

    host = "local"
    is_alone = True

    def __init__(self) -> None:
        self.elsewhere: dict[str, Peer] = {}  # session → the host that has it
        self.lost: set[str] = set()  # sessions whose host is lost, with their newest files
        self.acts = self.on_duty = True
        self.incarnations: dict[str, int] = {}  # of other hosts that keep their sessions
        self.best: Sequence[Peer | None] = (None,)

    def may_act(self) -> bool:
        return self.acts

    def standing(self) -> Callable[[], bool]:
        return self.may_act

    def has_duty(self) -> bool:
        return self.acts and self.on_duty

    def is_mine(self, session: Session) -> bool:
        return self.acts and session.id not in self.elsewhere and session.id not in self.lost

    async def here(self, session: Session) -> Session:
        self._require(session)
        if session.id in self.lost:
            raise Unavailable("The session's host is lost.", reason="host_lost")
        return session

    async def take(self, session: Session) -> Session:
        self._require(session)
        self.lost.discard(session.id)
        return session

    def steady(self, peer: Peer) -> int | None:
        return self.incarnations.get(peer.id)

    async def candidates(self, image: str) -> Sequence[Peer | None]:
        return self.best

    def _require(self, session: Session) -> None:
        if not self.acts:
            raise MayNotAct
        if peer := self.elsewhere.get(session.id):
            raise AnotherHost(peer)
