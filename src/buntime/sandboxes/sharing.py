"""One run of blocking work for many callers."""

import asyncio
from collections.abc import Callable


class Shared:
    """Shares blocking work such as a sync of a file system: one run serves every caller that asked before it began."""

    def __init__(self) -> None:
        self._one = asyncio.Lock()
        self._next: asyncio.Future[None] | None = None

    async def done(self, work: Callable[[], None]) -> None:
        """Returns when a run that began after this call has ended. Raises what it raises."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._run(work))
        await asyncio.shield(self._next)

    async def _run(self, work: Callable[[], None]) -> None:
        async with self._one:
            self._next = None  # later callers wait for the run after this one
            await asyncio.to_thread(work)
