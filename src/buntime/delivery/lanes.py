"""How many attempts are under way at once, in all and for each account.

Endpoints that fail or are slow share places of their own. So receivers that never answer, however many there are, take
no place from those that do.
"""

from asyncio import Semaphore
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

QUICK, SLOW = 256, 64  # attempts in all
QUICK_OF_ACCOUNT, SLOW_OF_ACCOUNT = 32, 4


class Lanes:
    def __init__(self) -> None:
        self._all = {False: Semaphore(QUICK), True: Semaphore(SLOW)}
        self._of_account: WeakValueDictionary[tuple[str, bool], Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def place(self, account: str, *, slow: bool) -> AsyncIterator[None]:
        """Waits for a place for one attempt, and holds it within the block."""
        own = self._of_account.get((account, slow))
        if own is None:
            own = Semaphore(SLOW_OF_ACCOUNT if slow else QUICK_OF_ACCOUNT)
            self._of_account[account, slow] = own
        async with own, self._all[slow]:
            yield
