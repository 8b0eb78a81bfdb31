"""Whether this host drains, as its row says."""

import math
from collections.abc import Callable

from buntime.fleet.members import HostState, Members


class Marked:
    """Implements `lifecycle.draining.Drain`. `state`: what the newest renewal has said."""

    def __init__(self, host: str, members: Members, state: Callable[[], HostState]) -> None:
        self.host = host
        self._members, self._state = members, state

    def is_on(self) -> bool:
        return self._state() is HostState.DRAINING

    async def seconds_left(self) -> float:
        """Infinity where the row does not say it."""
        mine = [each.drain_left for each in await self._members.list() if each.id == self.host]
        return next((left for left in mine if left is not None), math.inf)
