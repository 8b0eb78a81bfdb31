"""Usage in SQL. Changes run inside a transaction, together with the change of state that ends a window."""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import replace

import structlog

from buntime.session import Session, State
from buntime.stores.rows.usage import open_of, open_row, window_of, window_row
from buntime.usage import (
    AMOUNTS,
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

log = structlog.get_logger()

_COLUMNS = ", ".join(AMOUNTS)
_VALUES = ", ".join("?" * len(AMOUNTS))
_SUMS = ", ".join(f"sum({name})" for name in AMOUNTS)
_ADDED = ", ".join(f"{name} = {name} + excluded.{name}" for name in AMOUNTS)
_WHOLE_ACCOUNT = ""  # in place of a session

_PUT_OPEN = """
INSERT OR REPLACE INTO usage_open
VALUES (:session, :account, :ordinal, :state, :began_at, :noted_at, :boot, :steady, :amounts, :counters, :disk,
        :archived, :server, :runs)
"""

_NEXT_NUMBER = """
INSERT INTO usage_numbers VALUES (?, 1) ON CONFLICT (account) DO UPDATE SET number = number + 1 RETURNING number
"""

_NAMED = ", ".join(f":{name}" for name in AMOUNTS)
_ADD_WINDOW = f"""
INSERT INTO usage_windows VALUES (:account, :number, :session, :ordinal, :state, :began_at, :ended_at, {_NAMED})
"""

_ADD_TO_DAY = f"""
INSERT INTO usage_days VALUES (?, ?, ?, {_VALUES})
ON CONFLICT (account, session, day) DO UPDATE SET {_ADDED}
"""

_BY_DAY = f"""
SELECT day, {_COLUMNS} FROM usage_days WHERE account = ? AND session = ? AND day BETWEEN ? AND ? ORDER BY day
"""

_ADD_TO_MONTH = f"""
INSERT INTO usage_months VALUES (?, ?, ?, {_VALUES})
ON CONFLICT (month, account, session) DO UPDATE SET {_ADDED}
"""

_SESSIONS = "SELECT session FROM usage_months WHERE account = ? AND month = ? AND session > ? ORDER BY session LIMIT ?"

_OF_MONTHS = f"""
SELECT u.session, {_SUMS}
FROM json_each(:months) AS m CROSS JOIN usage_months AS u
WHERE u.account = :account AND u.month = m.value AND u.session BETWEEN :first AND :last
GROUP BY u.session
"""

_OF_DAYS = f"""
SELECT d.session, {_SUMS}
FROM json_each(:sessions) AS s CROSS JOIN usage_days AS d
WHERE d.account = :account AND d.session = s.value AND d.day BETWEEN :first AND :last
GROUP BY d.session
"""

_WINDOWS = "SELECT * FROM usage_windows WHERE account = ? AND number > ? ORDER BY number LIMIT ?"

_DROP_WINDOWS = """
DELETE FROM usage_windows
WHERE (account, number) IN (SELECT account, number FROM usage_windows WHERE ended_at < ? LIMIT ?)
"""

_DROP_DAYS = """
DELETE FROM usage_days
WHERE (account, session, day) IN (SELECT account, session, day FROM usage_days WHERE day < ? LIMIT ?)
"""

_DROP_MONTHS = """
DELETE FROM usage_months
WHERE (month, account, session) IN (SELECT month, account, session FROM usage_months WHERE month < ? LIMIT ?)
"""

_LOOKS = 20  # pages of sessions that one read looks through for those with something in the days that are asked for


def begin(connection: sqlite3.Connection, session: Session, reading: Reading | None) -> None:
    """Opens the first window of a session. Without a reading, its first note does."""
    if reading is not None:
        _put(connection, first_window(session, reading))


def follow(connection: sqlite3.Connection, old: Session, new: Session, reading: Reading | None) -> None:
    """Notes what a change of a session means for its window. Without a reading, nothing was used since the last note,
    and a window that ends has ended then."""
    closes, archived = closes_window(old, new), archived_bytes(new)
    if not closes and archived == archived_bytes(old):
        return
    window = _get(connection, new.id)
    if window is None:
        if new.state is not State.DELETING:
            begin(connection, new, reading)
        return
    if reading is not None:
        window = _noted(connection, window, reading)
    if closes:
        _add(connection, window.close())
        window = window.following(new.state, reading.next if reading else None)
    if new.state is State.DELETING:
        end(connection, new.id)
    else:
        _put(connection, replace(window, archived=archived))


def end(connection: sqlite3.Connection, session_id: str) -> None:
    """The session has no open window any more."""
    connection.execute("DELETE FROM usage_open WHERE session = ?", (session_id,))


def note(connection: sqlite3.Connection, readings: Sequence[tuple[Session, Reading]]) -> None:
    """Notes what was used in the open windows of these sessions, and closes those that are long."""
    for session, reading in readings:
        stored = connection.execute("SELECT state, sandbox FROM sessions WHERE id = ?", (session.id,)).fetchone()
        if stored is None or stored["state"] == State.DELETING:
            continue
        reading, window = reading.of(stored["sandbox"]), _get(connection, session.id)
        if window is None:
            begin(connection, replace(session, state=State(stored["state"])), reading)
            continue
        window = _noted(connection, window, reading)
        if window.is_long:
            _add(connection, window.close())
            window = window.following(window.state)
        _put(connection, window)


def list_windows(
    connection: sqlite3.Connection, account_id: str, after: int, limit: int
) -> tuple[Sequence[Window], int]:
    """The windows with the next numbers, and the last of these. With none, `after`, or the newest if that is lower."""
    rows = connection.execute(_WINDOWS, (account_id, after, limit)).fetchall()
    if rows:
        return [window_of(row) for row in rows], rows[-1]["number"]
    newest = connection.execute("SELECT number FROM usage_numbers WHERE account = ?", (account_id,)).fetchone()
    return [], min(after, newest["number"] if newest else 0)


def by_day(
    connection: sqlite3.Connection, account_id: str, session_id: str | None, first: int, last: int
) -> Sequence[tuple[int, Amounts]]:
    rows = connection.execute(_BY_DAY, (account_id, session_id or _WHOLE_ACCOUNT, first, last))
    return [(day, Amounts(*amounts)) for day, *amounts in rows]


def by_session(
    connection: sqlite3.Connection, account_id: str, first: int, last: int, after: str, limit: int
) -> tuple[Sequence[tuple[str, Amounts]], str | None]:
    months = range(month_of(first), month_of(last) + 1)
    found: list[tuple[str, Amounts]] = []
    for _ in range(_LOOKS):
        sessions = _sessions(connection, account_id, months, after, limit + 1)
        found += _of_sessions(connection, account_id, sessions[:limit], first, last)
        if len(found) > limit:
            return found[:limit], found[limit - 1][0]
        if len(sessions) <= limit:
            return found, None
        after = sessions[limit - 1]
        if len(found) == limit:
            break
    return found, after


def newest_window_end(connection: sqlite3.Connection) -> int | None:
    found: int | None = connection.execute("SELECT max(ended_at) FROM usage_windows").fetchone()[0]
    return found


def drop(connection: sqlite3.Connection, before: int, before_month: int, most: int) -> int:
    """Removes at most `most` windows, and as many days and months. Returns how many."""
    asked = (_DROP_WINDOWS, before), (_DROP_DAYS, first_day_of(before_month)), (_DROP_MONTHS, before_month)
    return sum(connection.execute(statement, (bound, most)).rowcount for statement, bound in asked)


def _sessions(
    connection: sqlite3.Connection, account_id: str, months: Sequence[int], after: str, limit: int
) -> Sequence[str]:
    """The next sessions with something in one of these months."""
    asked = (connection.execute(_SESSIONS, (account_id, month, after, limit)) for month in months)
    return sorted({row["session"] for rows in asked for row in rows})[:limit]


def _of_sessions(
    connection: sqlite3.Connection, account_id: str, sessions: Sequence[str], first: int, last: int
) -> Sequence[tuple[str, Amounts]]:
    """What each of these has used. They must be neighbours: all of the account's sessions from the first to the last of
    them with something in these months."""
    if not sessions:
        return []
    months, days = parts_of(first, last)
    whole = {"account": account_id, "months": json.dumps([*months]), "first": sessions[0], "last": sessions[-1]}
    rows = connection.execute(_OF_MONTHS, whole).fetchall()
    for begin, end in days:
        part = {"account": account_id, "sessions": json.dumps([*sessions]), "first": begin, "last": end}
        rows += connection.execute(_OF_DAYS, part).fetchall()
    used: dict[str, Amounts] = {}
    for session, *amounts in rows:
        used[session] = used.get(session, NOTHING) + Amounts(*amounts)
    return sorted(used.items())


def _noted(connection: sqlite3.Connection, window: OpenWindow, reading: Reading) -> OpenWindow:
    """The window after the note, which is in the days and months already."""
    noted = window.note(reading)
    used = noted.amounts - window.amounts
    left_out = noted.noted.left_out(window.noted)
    if left_out:
        log.warning("usage_left_out", session=window.session, days=left_out // DAY_MS)
    for day, share in days_of(used, noted.noted.at) if used != NOTHING else ():
        for session in (window.session, _WHOLE_ACCOUNT):
            connection.execute(_ADD_TO_DAY, (window.account, session, day, *share.values))
        connection.execute(_ADD_TO_MONTH, (window.account, month_of(day), window.session, *share.values))
    return noted


def _add(connection: sqlite3.Connection, window: Window) -> None:
    number = connection.execute(_NEXT_NUMBER, (window.account,)).fetchone()[0]
    connection.execute(_ADD_WINDOW, window_row(window) | {"number": number})


def _put(connection: sqlite3.Connection, window: OpenWindow) -> None:
    connection.execute(_PUT_OPEN, open_row(window))


def _get(connection: sqlite3.Connection, session_id: str) -> OpenWindow | None:
    row = connection.execute("SELECT * FROM usage_open WHERE session = ?", (session_id,)).fetchone()
    return None if row is None else open_of(row)
