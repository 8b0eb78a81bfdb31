"""Changing a stored session, with retries when another change came first.

Every stored change names the version that it expects (see `ports.Store.change_session`). When the stored version is
another one, the session is read again and the change is computed again from what is stored now.
"""

from collections.abc import Awaitable, Callable
from functools import partial

from buntime import errors
from buntime.event import AccountEvent, of_change
from buntime.lifecycle.metering import Metering
from buntime.ports import Owners, Store
from buntime.session import Session, State
from buntime.usage import Reading, closes_window


class Changes:
    def __init__(self, store: Store, metering: Metering, owners: Owners, clock: Callable[[], float]) -> None:
        self._store = store
        self._owners = owners
        self._metering = metering
        self._clock = clock

    def events_of(self, before: Session, after: Session) -> tuple[AccountEvent, ...]:
        """What is stored together with the change."""
        return of_change(before, after, self._clock())

    async def present(self, session_id: str) -> Session:
        """The stored session, which this host has. Raises SessionNotFound when it is missing or being deleted, and
        NotOwner."""
        session = await self._store.get_session(session_id)
        if session is None or session.state is State.DELETING:
            raise errors.SessionNotFound(session_id)
        if not self._owners.is_mine(session):
            raise errors.NotOwner(session_id)
        return session

    async def change(
        self, session_id: str, make: Callable[[Session], Session], reading: Reading | None = None
    ) -> Session:
        """Stores what `make` returns for the session, and returns that. Raises SessionNotFound.

        `reading`: of what the session used until now, for a change that ends its window of usage. Without one, that
        window has ended when it was last noted.
        """
        _, after = await self.change_what(partial(self.present, session_id), make, reading)
        return after

    async def change_what(
        self,
        read: Callable[[], Awaitable[Session]],
        make: Callable[[Session], Session],
        reading: Reading | None = None,
    ) -> tuple[Session, Session]:
        """The same for the session that `read` returns. Returns it as it was and as it is now. Raises what `read`
        and `make` raise."""
        while True:
            before = await read()
            wanted = make(before)
            if wanted == before:
                return before, before
            try:
                used = reading if closes_window(before, wanted) else self._metering.now(before.id)
                events = self.events_of(before, wanted)
                return before, await self._store.change_session(before, wanted, events=events, reading=used)
            except errors.StaleSession:
                continue
