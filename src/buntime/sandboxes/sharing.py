"""Work that serves all who ask for it before it begins."""

import asyncio
from collections.abc import Callable


class Shared:
    """Blocking work of which one run is enough for many callers, as a sync of a file system is."""

    def __init__(self) -> None:
        self._one = asyncio.Lock()
        self._next: asyncio.Future[None] | None = None

    async def done(self, work: Callable[[], None]) -> None:
        """Returns when a run that began after this call has ended; raises what it raises."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._run(work))
        await asyncio.shield(self._next)

    async def _run(self, work: Callable[[], None]) -> None:
        async with self._one:
            self._next = None  # whoever comes from here on waits for the run after this one
            await asyncio.to_thread(work)
