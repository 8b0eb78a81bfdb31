"""How many attempts are under way at once, in all and for each account.

Endpoints that fail or were slow lately share places of their own. So receivers that never answer, or take long to
answer well, take no place from others, however many there are.
"""

import asyncio
from asyncio import Semaphore
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from weakref import WeakValueDictionary

QUICK, SLOW = 256, 64  # attempts in all
QUICK_OF_ACCOUNT, SLOW_OF_ACCOUNT = 32, 4
SLOW_SECONDS = 1.0  # an attempt that takes longer makes its endpoint slow, before it has ended
SLOW_FOR = 300.0  # seconds for which an endpoint is slow, after that


class Lanes:
    def __init__(self) -> None:
        self._all = {False: Semaphore(QUICK), True: Semaphore(SLOW)}
        self._of_account: WeakValueDictionary[tuple[str, bool], Semaphore] = WeakValueDictionary()
        self._slow_until: dict[str, float] = {}  # webhook id → time of the loop

    @asynccontextmanager
    async def place(self, webhook_id: str, account: str, *, failing: bool) -> AsyncIterator[None]:
        """Waits for a place for one attempt, and holds it within the block."""
        slow = failing or self._is_slow(webhook_id)
        async with self._own(account, slow), self._all[slow]:
            if slow or not self._is_slow(webhook_id):
                with self._timed(webhook_id):
                    yield
                return
        async with self._own(account, slow=True), self._all[True]:  # it has become slow while this waited
            with self._timed(webhook_id):
                yield

    def _own(self, account: str, slow: bool) -> Semaphore:
        own = self._of_account.get((account, slow))
        if own is None:
            own = Semaphore(SLOW_OF_ACCOUNT if slow else QUICK_OF_ACCOUNT)
            self._of_account[account, slow] = own
        return own

    def _is_slow(self, webhook_id: str) -> bool:
        return self._slow_until.get(webhook_id, 0.0) > asyncio.get_running_loop().time()

    @contextmanager
    def _timed(self, webhook_id: str) -> Iterator[None]:
        late = asyncio.get_running_loop().call_later(SLOW_SECONDS, self._found_slow, webhook_id)
        try:
            yield
        finally:
            late.cancel()

    def _found_slow(self, webhook_id: str) -> None:
        now = asyncio.get_running_loop().time()
        self._slow_until = {known: until for known, until in self._slow_until.items() if until > now}
        self._slow_until[webhook_id] = now + SLOW_FOR
