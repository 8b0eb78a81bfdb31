"""What sessions used."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import structlog

from buntime.session import Session, State
from buntime.stores.postgres.committing import DROP_AT_ONCE
from buntime.stores.postgres.kept import KeptFiles
from buntime.stores.postgres.transactions import Transaction
from buntime.stores.rows.sessions import session_of
from buntime.stores.rows.usage import amounts_of, amounts_row, open_of, open_row, window_of, window_row
from buntime.usage import (
    DAY_MS,
    NOTHING,
    Amounts,
    OpenWindow,
    Reading,
    Window,
    archived_bytes,
    closes_window,
    days_of,
    first_day_of,
    first_window,
    month_of,
    parts_of,
)

NOTES_AT_ONCE = 100  # sessions noted in one change, so that other changes can run in between
LOOKS = 20  # pages of sessions that one read looks through for those with something in the days that are asked for
WHOLE_ACCOUNT = ""  # in place of a session

log = structlog.get_logger()


class NotedUsage(KeptFiles):
    """The part of `ports.Store` about usage."""

    async def note_usage(self, readings: Mapping[str, Reading]) -> None:
        ids = sorted(readings)
        for begin in range(0, len(ids), NOTES_AT_ONCE):
            await self._note({one: readings[one] for one in ids[begin : begin + NOTES_AT_ONCE]})

    async def _note(self, readings: Mapping[str, Reading]) -> None:
        async def work(transaction: Transaction) -> None:
            stored = await transaction.all("lock_noted", ids=list(readings), me=self.host)
            living = {row["id"]: row for row in stored if row["state"] != State.DELETING}
            rows = await transaction.all("open_windows", ids=list(living))
            windows, notes = {row["session"]: open_of(row) for row in rows}, Notes(transaction)
            for session_id, row in living.items():
                reading = readings[session_id].of(row["sandbox"])
                if session_id in windows:
                    await notes.note_and_close(windows[session_id], reading)
                else:
                    await begin(transaction, await _session(transaction, session_id), reading)
            await notes.store()

        await self._change(work)

    async def list_windows(self, account_id: str, after: int, limit: int) -> tuple[Sequence[Window], int]:
        rows = await self._transactions.all("list_windows", account=account_id, after=after, limit=limit)
        if rows:
            return [window_of(row) for row in rows], rows[-1]["number"]
        (newest,) = await self._transactions.all("newest_number", account=account_id)
        return [], min(after, newest["number"])

    async def usage_by_day(
        self, account_id: str, first: int, last: int, session_id: str | None = None
    ) -> Sequence[tuple[int, Amounts]]:
        asked = {"account": account_id, "session": session_id or WHOLE_ACCOUNT, "first": first, "last": last}
        return [(row["day"], amounts_of(row)) for row in await self._transactions.all("usage_by_day", **asked)]

    async def usage_by_session(
        self, account_id: str, first: int, last: int, after: str, limit: int
    ) -> tuple[Sequence[tuple[str, Amounts]], str | None]:
        months = list(range(month_of(first), month_of(last) + 1))
        found: list[tuple[str, Amounts]] = []
        for _ in range(LOOKS):
            asked = {"account": account_id, "months": months, "after": after, "limit": limit + 1}
            sessions = [row["session"] for row in await self._transactions.all("sessions_of_month", **asked)]
            found += await self._of_sessions(account_id, sessions[:limit], first, last)
            if len(found) > limit:
                return found[:limit], found[limit - 1][0]
            if len(sessions) <= limit:
                return found, None
            after = sessions[limit - 1]
            if len(found) == limit:
                break
        return found, after

    async def _of_sessions(
        self, account_id: str, sessions: Sequence[str], first: int, last: int
    ) -> Sequence[tuple[str, Amounts]]:
        """What each of these has used. They must be neighbours."""
        if not sessions:
            return []
        months, days = parts_of(first, last)
        whole = {"account": account_id, "months": list(months), "first": sessions[0], "last": sessions[-1]}
        parts = [
            {"account": account_id, "sessions": list(sessions), "first": begin, "last": end} for begin, end in days
        ]
        read = self._transactions.all
        answers = await asyncio.gather(
            read("usage_of_months", **whole), *(read("usage_of_days", **part) for part in parts)
        )
        used: dict[str, Amounts] = {}
        for row in (row for rows in answers for row in rows):
            used[row["session"]] = used.get(row["session"], NOTHING) + amounts_of(row)
        return sorted(used.items())

    async def newest_window_end(self) -> int | None:
        (row,) = await self._transactions.all("newest_window_end")
        return None if row["ended_at"] is None else int(row["ended_at"])

    async def drop_usage(self, before_day: int) -> int:
        month = month_of(before_day)
        bounds = (("drop_windows", before_day * DAY_MS), ("drop_days", first_day_of(month)), ("drop_months", month))

        async def work(transaction: Transaction) -> int:
            return sum([await transaction.run(name, before=bound, most=DROP_AT_ONCE) for name, bound in bounds])

        total = 0
        while dropped := await self._change(work):
            total += dropped
        return total


class Notes:
    """What several windows have used, added up and stored at once.

    So a transaction changes each row of days and months once, and all transactions do so in one order.
    """

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._days: dict[tuple[str, str, int], Amounts] = {}
        self._months: dict[tuple[str, str, int], Amounts] = {}
        self._closed: list[Window] = []
        self._open: list[OpenWindow] = []

    def note(self, window: OpenWindow, reading: Reading) -> OpenWindow:
        noted = window.note(reading)
        used = noted.amounts - window.amounts
        if left_out := noted.noted.left_out(window.noted):
            log.warning("usage_left_out", session=window.session, days=left_out // DAY_MS)
        for day, share in days_of(used, noted.noted.at) if used != NOTHING else ():
            for session in (window.session, WHOLE_ACCOUNT):
                place = window.account, session, day
                self._days[place] = self._days.get(place, NOTHING) + share
            place = window.account, window.session, month_of(day)
            self._months[place] = self._months.get(place, NOTHING) + share
        return noted

    async def note_and_close(self, window: OpenWindow, reading: Reading) -> None:
        """Closes the window if it is long."""
        window = self.note(window, reading)
        if window.is_long:
            self.close(window)
            window = window.following(window.state)
        self.put(window)

    def close(self, window: OpenWindow) -> None:
        self._closed.append(window.close())

    def put(self, window: OpenWindow) -> None:
        self._open.append(window)

    async def store(self) -> None:
        send = self._transaction.send_columns
        await send("put_open", [open_row(window) for window in self._open])
        await send("add_to_months", _rows(self._months, "month"))
        await send("add_to_days", _rows(self._days, "day"))
        await send("add_windows", [window_row(window) for window in self._closed])


async def begin(transaction: Transaction, session: Session, reading: Reading | None) -> None:
    """Opens the first window of a session. Without a reading, its first note does."""
    if reading is not None:
        await transaction.send_columns("put_open", [open_row(first_window(session, reading))])


async def follow(transaction: Transaction, old: Session, new: Session, reading: Reading | None) -> None:
    """Notes what a change of a session means for its window. Without a reading, nothing was used since the last note,
    and a window that ends has ended then."""
    closes, archived = closes_window(old, new), archived_bytes(new)
    if not closes and archived == archived_bytes(old):
        return
    row = await transaction.first("open_windows", ids=[new.id])
    if row is None:
        if new.state is not State.DELETING:
            await begin(transaction, new, reading)
        return
    window, notes = open_of(row), Notes(transaction)
    if reading is not None:
        window = notes.note(window, reading)
    if closes:
        notes.close(window)
        window = window.following(new.state, reading.next if reading else None)
    if new.state is State.DELETING:
        await transaction.send("end_open", session=new.id)
    else:
        notes.put(replace(window, archived=archived))
    await notes.store()


async def _session(transaction: Transaction, session_id: str) -> Session:
    return session_of(await transaction.only("get_session", id=session_id))


def _rows(amounts: Mapping[tuple[str, str, int], Amounts], what: str) -> Sequence[Mapping[str, object]]:
    return [
        {"account": account, "session": session, what: number} | amounts_row(amounts[account, session, number])
        for account, session, number in sorted(amounts)
    ]
