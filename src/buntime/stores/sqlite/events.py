"""Events in SQL. Each is added in the transaction of the change that it tells of.

One connection writes at a time, so numbers grow in the order of commits. No row with a smaller number appears later.
"""

import sqlite3
from collections.abc import Collection, Iterable, Sequence, Set

from buntime.event import AccountEvent, EventType
from buntime.ports import NumberedEvent
from buntime.stores.rows.events import event_row, numbered_of
from buntime.stores.rows.row import Values

_ADD = """
INSERT INTO events (id, account, type, time, session, data, actor, request, key, address)
VALUES (:id, :account, :type, :time, :session, :data, :actor, :request, :key, :address)
"""

# The end of a process does not come after that of its session.
_NOTE = """
INSERT INTO events (id, account, type, time, session, data, actor, request, key, address)
SELECT :id, :account, :type, :time, :session, :data, :actor, :request, :key, :address
WHERE :type <> 'process.exited' OR (
  EXISTS (SELECT 1 FROM sessions WHERE id = :session AND state <> 'deleting')
  AND NOT EXISTS (SELECT 1 FROM accounts WHERE id = :account AND status = 'deleted')
)
"""

_OLD = """
DELETE FROM events
WHERE seq IN (SELECT seq FROM (SELECT seq, time FROM events ORDER BY seq LIMIT :most) WHERE time < :before)
"""

_TOO_MANY = "SELECT account, events FROM event_counts WHERE events > ? LIMIT 1"

_OLDEST = "DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE account = ? ORDER BY seq LIMIT ?)"


def add_noted(connection: sqlite3.Connection, rows: Iterable[Values]) -> None:
    """See `ports.Store.note_events`."""
    connection.executemany(_NOTE, rows)


def add_events(connection: sqlite3.Connection, events: Iterable[AccountEvent]) -> None:
    connection.executemany(_ADD, map(event_row, events))


def list_events(
    connection: sqlite3.Connection,
    account_id: str | None,
    after: int,
    session: str | None,
    what: EventType | None,
    limit: int,
) -> Sequence[NumberedEvent]:
    """See `ports.Store`."""
    wanted = {"account": account_id, "session": session, "type": what}
    conditions = ["seq > :after", *(f"{column} = :{column}" for column, value in wanted.items() if value is not None)]
    query = f"SELECT * FROM events WHERE {' AND '.join(conditions)} ORDER BY seq LIMIT :limit"
    rows = connection.execute(query, wanted | {"after": after, "limit": limit})
    return [numbered_of(row) for row in rows]


def stored_events(connection: sqlite3.Connection, session_id: str, ids: Collection[str], most: int) -> Set[str]:
    """Those of the ids that are among the newest `most` events of the session."""
    rows = connection.execute("SELECT id FROM events WHERE session = ? ORDER BY seq DESC LIMIT ?", (session_id, most))
    return {row["id"] for row in rows} & set(ids)


def newest_event(connection: sqlite3.Connection, account_id: str) -> int:
    return int(
        connection.execute("SELECT coalesce(max(seq), 0) FROM events WHERE account = ?", (account_id,)).fetchone()[0]
    )


def newest_event_time(connection: sqlite3.Connection) -> int | None:
    row = connection.execute("SELECT time FROM events ORDER BY seq DESC LIMIT 1").fetchone()
    return row["time"] if row else None


def drop_old_events(connection: sqlite3.Connection, before: int, most: int) -> int:
    """Removes at most `most`. Looks at that many of the oldest alone. Returns how many."""
    return connection.execute(_OLD, {"before": before, "most": most}).rowcount


def drop_surplus_events(connection: sqlite3.Connection, kept: int, most: int) -> int:
    """Removes the oldest of one account that has more than `kept`, at most `most`. Returns how many."""
    found = connection.execute(_TOO_MANY, (kept,)).fetchone()
    if found is None:
        return 0
    surplus = min(found["events"] - kept, most)
    return connection.execute(_OLDEST, (found["account"], surplus)).rowcount
