"""What sessions used, in the SQLite file."""

import sqlite3
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from buntime.stores.sqlite import usage
from buntime.stores.sqlite.index import SessionIndex
from buntime.stores.sqlite.kept import KeptFiles
from buntime.stores.sqlite.log import LogCleaner
from buntime.stores.sqlite.told import DROP_AT_ONCE
from buntime.stores.sqlite.writer import Writer
from buntime.usage import DAY_MS, Amounts, Reading, Window, month_of

NOTES_AT_ONCE = 100  # sessions noted in one change, for the same reason


class NotedUsage(KeptFiles):
    """The part of `ports.Store` about usage. Reads of it may take many milliseconds, so a thread makes them."""

    def __init__(
        self, path: Path, reader: sqlite3.Connection, writer: Writer, log: LogCleaner, index: SessionIndex
    ) -> None:
        super().__init__(path, reader, writer, log)
        self._index = index

    async def note_usage(self, readings: Mapping[str, Reading]) -> None:
        found = ((self._index.get(session_id), reading) for session_id, reading in readings.items())
        known = [(session, reading) for session, reading in found if session is not None]
        for begin in range(0, len(known), NOTES_AT_ONCE):
            await self._change(partial(usage.note, readings=known[begin : begin + NOTES_AT_ONCE]))

    async def list_windows(self, account_id: str, after: int, limit: int) -> tuple[Sequence[Window], int]:
        return await self._read(partial(usage.list_windows, account_id=account_id, after=after, limit=limit))

    async def usage_by_day(
        self, account_id: str, first: int, last: int, session_id: str | None = None
    ) -> Sequence[tuple[int, Amounts]]:
        read = partial(usage.by_day, account_id=account_id, session_id=session_id, first=first, last=last)
        return await self._read(read)

    async def usage_by_session(
        self, account_id: str, first: int, last: int, after: str, limit: int
    ) -> tuple[Sequence[tuple[str, Amounts]], str | None]:
        read = partial(usage.by_session, account_id=account_id, first=first, last=last, after=after, limit=limit)
        return await self._read(read)

    async def newest_window_end(self) -> int | None:
        return await self._read(usage.newest_window_end)

    async def drop_usage(self, before_day: int) -> int:
        before, before_month, total, dropped = before_day * DAY_MS, month_of(before_day), 0, 1
        while dropped:
            work = partial(usage.drop, before=before, before_month=before_month, most=DROP_AT_ONCE)
            dropped = await self._change(work)
            total += dropped
        return total
