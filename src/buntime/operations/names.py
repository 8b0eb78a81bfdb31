"""Names of sessions: which session has a name, and who may give one away."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from weakref import WeakValueDictionary

from buntime import errors
from buntime.lifecycle.endings import Endings
from buntime.ports import Store
from buntime.session import Session

PREFIX = "name:"  # in place of an id, before a name


class Names:
    """The store decides who gets a name. What is here keeps requests of this server from working for nothing."""

    def __init__(self, store: Store, endings: Endings, clock: Callable[[], float]) -> None:
        self._store = store
        self._endings = endings
        self._clock = clock
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def id_of(self, account: str, text: str) -> str:
        """The id for `name:NAME`; any other text as it is. Raises SessionNotFound."""
        if not text.startswith(PREFIX):
            return text
        found = await self.holder(account, text.removeprefix(PREFIX))
        if found is None:
            raise errors.SessionNotFound(text[:100])
        return found.id

    async def holder(self, account: str, name: str) -> Session | None:
        """The living session of this name."""
        found = await self._store.named_session(account, name)
        return None if found is None or found.has_expired(self._clock()) else found

    @asynccontextmanager
    async def turn(self, account: str, name: str | None) -> AsyncIterator[Session | None]:
        """Yields who has the name. If nobody has it, nobody else gets it through this server within the block.

        A session that has expired, and is not deleted yet, ends now. So its name is free.
        """
        if name is None:
            yield None
            return
        async with self._turns.setdefault((account, name), asyncio.Lock()):
            found = await self._store.named_session(account, name)
            if found is not None and found.has_expired(self._clock()):
                with suppress(errors.SessionNotFound):  # somebody else ended it
                    await self._endings.end(found)
                found = None
            yield found
