"""One method per API operation on the events of an account."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from buntime.caller import Caller
from buntime.event import EventType
from buntime.operations.entrance import Entrance
from buntime.ports import NumberedEvent, Store

PAGE = 100  # events that a stream sends at once
LOOK_SECONDS = 0.5  # between two looks for new events; other processes than the server add some


@dataclass(frozen=True, slots=True)
class Wanted:
    session: str | None = None  # id, also of a session that is gone
    what: EventType | None = None


class Events:
    def __init__(self, store: Store, entrance: Entrance) -> None:
        self._store = store
        self._entrance = entrance

    async def page(self, caller: Caller, wanted: Wanted, after: int, limit: int) -> Sequence[NumberedEvent]:
        """The account's events with a number above `after`, oldest first."""
        return await self._store.list_events(
            caller.account.id, after=after, session=wanted.session, what=wanted.what, limit=limit
        )

    @asynccontextmanager
    async def follow(
        self, caller: Caller, wanted: Wanted, after: int | None
    ) -> AsyncIterator[tuple[int, AsyncIterator[Sequence[NumberedEvent]]]]:
        """The number after which it begins, and pages for ever, as events come. `after` None: from now on.

        Counts as an open stream of the account. Raises ResourceLimitExceeded.
        """
        async with self._entrance.account_stream(caller):
            start = await self._store.newest_event(caller.account.id) if after is None else after
            yield start, self._pages(caller, wanted, start)

    async def _pages(self, caller: Caller, wanted: Wanted, after: int) -> AsyncIterator[Sequence[NumberedEvent]]:
        while True:
            newest = await self._store.newest_event(caller.account.id)  # read first: what is stored later is above it
            page = await self.page(caller, wanted, after, PAGE) if newest > after else ()
            if page:
                yield page
            whole = len(page) < PAGE
            after = max(after, newest, page[-1].number if page else 0) if whole else page[-1].number
            await asyncio.sleep(LOOK_SECONDS if whole else 0)
