"""Who may start a sandbox now."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from buntime.sandboxes.containers import Purpose

STARTS_AT_ONCE = 4
OWN_AT_ONCE, OWN_OF_ACCOUNT = 4, 2  # on files that a session wrote


class Starts:
    """Files of a session can keep a guest from answering until its time is over: Bun and the C library read some of
    them when they start. So starts on such files have places of their own, and one account has not all of these."""

    def __init__(self) -> None:
        self._clean = asyncio.Semaphore(STARTS_AT_ONCE)
        self._own = asyncio.Semaphore(OWN_AT_ONCE)
        self._of_accounts: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def place(self, purpose: Purpose | None) -> AsyncIterator[None]:
        """`purpose`: None for a sandbox to be parked."""
        if purpose is None or not purpose.has_own_files:
            async with self._clean:
                yield
            return
        # lives as long as a start of the account holds it
        of_account = self._of_accounts.setdefault(purpose.account, asyncio.Semaphore(OWN_OF_ACCOUNT))
        async with of_account, self._own:
            yield
