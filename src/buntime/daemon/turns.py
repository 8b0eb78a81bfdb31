"""Work that nobody waits for, a few pieces at a time. No piece can keep others waiting for long."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

LONGEST_TURN = 0.05  # seconds


class Turns:
    """Few places for work that takes a processor: by default, on half of the host's processors."""

    def __init__(self, places: int = max(1, (os.cpu_count() or 1) // 2)) -> None:
        self._places = asyncio.Semaphore(places)

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Work that takes longer than LONGEST_TURN, as a session can make it, keeps its place no longer than that."""
        await self._places.acquire()
        is_over = False

        def give_back() -> None:
            nonlocal is_over
            if not is_over:
                is_over = True
                self._places.release()

        timer = asyncio.get_running_loop().call_later(LONGEST_TURN, give_back)
        try:
            yield
        finally:
            timer.cancel()
            give_back()
