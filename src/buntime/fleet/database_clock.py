"""The clock that all hosts of a fleet have in common: the database's."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from buntime.errors import Unavailable
from buntime.fleet.boot_clock import boot_seconds
from buntime.fleet.members import Members

HEAR_SECONDS = 30.0  # between two questions for the time
AGAIN_SECONDS = 1.0  # before it has said something
LOOK_SECONDS = 0.01
SLOW_SECONDS = 1.0  # an answer that takes longer says too little


class DatabaseClock:
    """Unix seconds. Call it.

    A host whose own clock is wrong, or is set, would end sessions early and tell wrong ages of what it recovers. So
    this clock goes on from what the database said by CLOCK_BOOTTIME, which nobody sets. It is the host's own until the
    database has said something.
    """

    def __init__(self, members: Members, boot: Callable[[], float] = boot_seconds) -> None:
        self._members, self._boot = members, boot
        self._ahead: float | None = None  # of CLOCK_BOOTTIME

    def __call__(self) -> float:
        return time.time() if self._ahead is None else self._boot() + self._ahead

    async def hear(self) -> None:
        """Asks the database. Raises Unavailable."""
        sent = self._boot()
        told = await self._members.now()
        got = self._boot()
        if self._ahead is None or got - sent < SLOW_SECONDS:
            self._ahead = told - (sent + got) / 2

    async def keep(self) -> None:
        """For ever."""
        while True:
            with suppress(Unavailable):
                await self.hear()
            await asyncio.sleep(AGAIN_SECONDS if self._ahead is None else HEAR_SECONDS)

    async def until_heard(self) -> None:
        """While `keep` runs."""
        while self._ahead is None:  # noqa: ASYNC110 - only a start waits for it
            await asyncio.sleep(LOOK_SECONDS)
