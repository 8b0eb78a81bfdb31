"""Whether an account may have one more session, asked of the store only where it may matter.

The store refuses a session too many, whatever is known here. This spares the work of one that it would refuse.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from buntime import errors
from buntime.caller import Caller
from buntime.ports import Store

SECONDS = 10.0  # for which a count is known
MOST = 10_000  # accounts


@dataclass(slots=True)
class _Known:
    sessions: int  # with those that have begun here since
    until: float


class Room:
    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._known: dict[str, _Known] = {}  # by account, oldest first

    async def require(self, caller: Caller) -> None:
        """Raises SessionLimitExceeded. While an account had less than half of its sessions a moment ago, nobody is
        asked."""
        account, plan, now = caller.account.id, caller.plan, self._clock()
        known = self._known.get(account)
        if known is not None and now < known.until and known.sessions < plan.sessions // 2:
            known.sessions += 1
            return
        active = await self._store.count_sessions(account)
        if active >= plan.sessions:
            self.forget(account)
            raise errors.SessionLimitExceeded(plan.name, plan.sessions, active)
        self._known.pop(account, None)
        if len(self._known) >= MOST:
            del self._known[next(iter(self._known))]
        self._known[account] = _Known(active + 1, now + SECONDS)

    def forget(self, account: str) -> None:
        """The store has refused a session: the next create asks."""
        self._known.pop(account, None)
