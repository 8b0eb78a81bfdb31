"""How much of the event loop's time is spent on looking for what is due."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

SHARE = 10  # looks of all webhooks together take at most one tenth of the time


class Looks:
    """One look at a time, in the order in which they are asked for. After each there is a rest."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._rests_until = 0.0  # time of the loop

    @asynccontextmanager
    async def look(self) -> AsyncIterator[None]:
        """Waits until it may look, which happens within the block."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            await asyncio.sleep(self._rests_until - loop.time())
            began = loop.time()
            try:
                yield
            finally:
                now = loop.time()
                self._rests_until = now + (now - began) * (SHARE - 1)
