"""Watching the sinks of a run while waiting for the guest."""

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any

from buntime.daemon.tasks import ends_within
from buntime.inside import Shows, Sink, Stream


class WatchedSinks:
    """The sinks of a run, and whether it is the client or the guest that keeps the run waiting."""

    def __init__(self, sink: Sink | None, shows: Shows | None = None) -> None:
        self._sink, self._shows = sink, shows
        self.busy = False
        self.taken = 0  # times
        self.sink = None if sink is None else self._take
        self.shows = None if shows is None else self._show

    async def drained(self, running: asyncio.Future[Any], seconds: float) -> bool:
        """Waits while a client still takes output, however slowly. False when nothing happens for `seconds`."""
        while True:
            before = self.taken
            if await ends_within(seconds, running):
                return True
            if not self.busy and self.taken == before:
                return False

    async def _take(self, stream: Stream, content: bytes) -> None:
        assert self._sink is not None
        await self._while_busy(self._sink(stream, content))

    async def _show(self, forms: Mapping[str, object]) -> None:
        assert self._shows is not None
        await self._while_busy(self._shows(forms))

    async def _while_busy(self, work: Awaitable[None]) -> None:
        self.busy = True
        try:
            await work
        finally:
            self.busy = False
            self.taken += 1
