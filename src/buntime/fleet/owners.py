"""Which host of a fleet has a session, as requests ask."""

from collections.abc import Callable, Sequence

import structlog

from buntime.errors import MayNotAct, SessionNotFound, Unavailable
from buntime.fleet.choices import Choices
from buntime.fleet.members import Member
from buntime.fleet.ownership import Handling, Whereabouts, handling_of
from buntime.fleet.rows import Rows
from buntime.ids import new_volume_id
from buntime.ports import AnotherHost, Peer
from buntime.session import Session

log = structlog.get_logger(__name__)

TRIES = 3  # a session may move between a look and a claim


class FleetOwners:
    """Implements `ports.Owners`. `on_duty`: set by `keeping`."""

    is_alone = False

    def __init__(
        self,
        host: str,
        rows: Rows,
        may_act: Callable[[], bool],
        choices: Choices,
        drains: Callable[[], bool],
        incarnation: Callable[[], int],
    ) -> None:
        """`may_act`, `incarnation`: see `Holding`. `drains`: whether this host does."""
        self.host = host
        self._rows = rows
        self._may_act, self._incarnation = may_act, incarnation
        self._choices, self._drains = choices, drains
        self.claimed = 0  # sessions, since the start
        self.on_duty = False

    def may_act(self) -> bool:
        return self._may_act()

    def standing(self) -> Callable[[], bool]:
        began = self._incarnation()
        return lambda: self._may_act() and self._incarnation() == began

    def has_duty(self) -> bool:
        return self.on_duty and self._may_act()

    def is_mine(self, session: Session) -> bool:
        return session.host == self.host and self._may_act()

    async def here(self, session: Session) -> Session:
        for _ in range(TRIES):
            found = await self._found(session)
            if found.host == self.host:
                return await self._read(session)
            if self._handling(found) is Handling.HOST_LOST:
                raise _host_lost()
            self._send_on(session)
            claimed = await self._rows.claim(session.id, new_volume_id())
            if claimed is not None:
                self.claimed += 1
                log.info("session_claimed", session=session.id, before=found.host, epoch=claimed.epoch)
                return claimed
        raise Unavailable("The session is moving just now.", 1)

    async def take(self, session: Session) -> Session:
        for _ in range(TRIES):
            found = await self._found(session)
            if found.host == self.host:
                return await self._read(session)
            if self._handling(found) is Handling.CLAIM:
                return await self.here(session)
            if session.saved is None:
                raise _host_lost()
            taken = await self._rows.take(session.id, new_volume_id())
            if taken is not None:
                log.warning("session_taken", session=session.id, before=found.host, epoch=taken.epoch)
                return taken
        raise Unavailable("The session is moving just now.", 1)

    def see(self, members: Sequence[Member], began: float) -> None:
        """See `Choices.see`."""
        self._choices.see(members, began)

    def steady(self, peer: Peer) -> int | None:
        return self._choices.steady(peer)

    async def candidates(self, image: str) -> Sequence[Peer | None]:
        hosts = self._choices.of(image)
        return [None if each.id == self.host else Peer(each.id, each.address) for each in hosts] or [None]

    def _send_on(self, session: Session) -> None:
        """While this host drains, another one claims what is nobody's. Raises AnotherHost."""
        if self._drains():
            others = (each for each in self._choices.of(session.image) if each.id != self.host)
            best = next((each for each in others if not each.is_draining), None)
            if best is not None:
                raise AnotherHost(Peer(best.id, best.address))

    async def _found(self, session: Session) -> Whereabouts:
        if not self._may_act():
            raise MayNotAct
        found = await self._rows.whereabouts(session.id)
        if found is None:
            raise SessionNotFound(session.id)
        return found

    def _handling(self, found: Whereabouts) -> Handling:
        """Raises AnotherHost."""
        handling = handling_of(found.state, archived=found.archived, taken_over=found.taken_over or found.host is None)
        if handling is not Handling.FORWARD:
            return handling
        if found.host is None or found.address is None:
            raise Unavailable("The session's host is not known.", 5)
        raise AnotherHost(Peer(found.host, found.address))

    async def _read(self, session: Session) -> Session:
        """As another request of this host has left it. Raises SessionNotFound."""
        read = await self._rows.get_session(session.id)
        if read is None:
            raise SessionNotFound(session.id)
        return read


def _host_lost() -> Unavailable:
    return Unavailable(
        "The host of this session is lost, with its newest files. It may come back. To go on from what the archive "
        "has, use `recover`.",
        30,
        reason="host_lost",
    )
