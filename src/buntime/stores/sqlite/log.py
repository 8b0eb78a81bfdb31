"""Removes deleted content from the write-ahead log too."""

import asyncio
from contextlib import suppress
from pathlib import Path

from buntime.stores.sqlite import database

CLEAN_SECONDS = 30.0  # how long deleted content may stay in the log, unless a reader holds it


class LogCleaner:
    """Empties the log some time after a deletion and after a start.

    `secure_delete` wipes only the file. The log would keep the old content until it is overwritten. Several deletions
    share one emptying, which takes as long as a few commits.
    """

    def __init__(self, path: Path) -> None:
        """Call this on the event loop."""
        self._path = path
        self._due = asyncio.Event()
        self._due.set()  # the previous server may have been killed soon after a deletion
        self._task = asyncio.create_task(self._run(), name="store-log")

    def due(self) -> None:
        self._due.set()

    async def close(self) -> None:
        """Returns when the file is no longer in use. Closing the last connection removes the log anyway."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while await self._due.wait():
            await asyncio.sleep(CLEAN_SECONDS)
            self._due.clear()
            if not await _emptied(self._path):
                self._due.set()


async def _emptied(path: Path) -> bool:
    """A cancelled caller still waits for the thread, because the thread holds locks."""
    emptying = asyncio.create_task(asyncio.to_thread(database.empty_log, path), name="store-log-emptying")
    try:
        return await asyncio.shield(emptying)
    finally:
        await emptying
