"""Sessions in SQL. Changes run inside a transaction and check the stored state, so that limits and versions also hold
between the changes of one commit.
"""

import sqlite3
from collections.abc import Iterator, Mapping

from buntime.errors import NameTaken, SessionLimitExceeded, StaleSession
from buntime.session import Session
from buntime.stores.rows.sessions import session_of, session_row
from buntime.stores.sqlite import usage
from buntime.stores.sqlite.images import require_image
from buntime.usage import Reading

_ADD = """
INSERT INTO sessions (id, account, state, created_at, expires_at, last_active, sandbox, volume, image, image_name,
                      made_of, host, epoch, version, on_wake, limits, metadata, preview, network, env, files, processes,
                      key, snapshot, previous, archived, name, checkpoint_every, idle_after, deep_sleep_after,
                      awake_while, services)
VALUES (:id, :account, :state, :created_at, :expires_at, :last_active, :sandbox, :volume, :image, :image_name,
        :made_of, :host, :epoch, :version, :on_wake, :limits, :metadata, :preview, :network, :env, :files, :processes,
        :key, :snapshot, :previous, :archived, :name, :checkpoint_every, :idle_after,
        :deep_sleep_after, :awake_while, :services)
"""

_CHANGE = """
UPDATE sessions
SET state = :state, created_at = :created_at, expires_at = :expires_at, last_active = max(last_active, :last_active),
    sandbox = :sandbox, volume = :volume, image = :image, image_name = :image_name,
    made_of = :made_of, host = :host, epoch = :epoch, version = :expected + 1,
    on_wake = :on_wake, limits = :limits, metadata = :metadata, preview = :preview, network = :network, env = :env,
    files = :files, processes = :processes, key = :key, snapshot = :snapshot, previous = :previous,
    archived = :archived, name = :name, checkpoint_every = :checkpoint_every, idle_after = :idle_after,
    deep_sleep_after = :deep_sleep_after, awake_while = :awake_while, services = :services
WHERE id = :id AND version = :expected
"""


_NAMED = "SELECT id FROM sessions WHERE account = :account AND name = :name AND state <> 'deleting'"


def add_session(connection: sqlite3.Connection, session: Session, limit: int, reading: Reading | None = None) -> None:
    """Raises NameTaken, SessionLimitExceeded, ImageNotFound, and ValueError if the id is taken."""
    _require_free(connection, session)
    counted = connection.execute("SELECT sessions FROM session_counts WHERE account = ?", (session.account,)).fetchone()
    active = 0 if counted is None else counted[0]
    if active >= limit:
        raise SessionLimitExceeded("", limit, active)
    require_image(connection, session)
    try:
        connection.execute(_ADD, session_row(session))
    except sqlite3.IntegrityError as refused:
        raise ValueError(f"session id {session.id} is taken") from refused
    usage.begin(connection, session, reading)


def change_session(connection: sqlite3.Connection, old: Session, new: Session, reading: Reading | None = None) -> None:
    """Raises StaleSession unless the stored version is that of `old`, and NameTaken."""
    try:
        changed = connection.execute(_CHANGE, session_row(new) | {"expected": old.version}).rowcount
    except sqlite3.IntegrityError:
        _require_free(connection, new)
        raise
    if changed != 1:
        raise StaleSession(f"{new.id} no longer has version {old.version}")
    usage.follow(connection, old, new, reading)


def touch_sessions(connection: sqlite3.Connection, touched: Mapping[str, int]) -> None:
    connection.executemany(
        "UPDATE sessions SET last_active = max(last_active, ?) WHERE id = ?",
        [(now, session_id) for session_id, now in touched.items()],
    )


def remove_session(connection: sqlite3.Connection, session_id: str) -> None:
    connection.execute("DELETE FROM sessions WHERE id = ?", (session_id,))
    usage.end(connection, session_id)


def all_sessions(connection: sqlite3.Connection) -> Iterator[Session]:
    """Raises ValueError with the id of a session whose row is invalid."""
    for row in connection.execute("SELECT * FROM sessions"):
        yield session_of(row)


def _require_free(connection: sqlite3.Connection, session: Session) -> None:
    """Raises NameTaken if another session has the name."""
    if session.name is None:
        return
    holder = connection.execute(_NAMED, {"account": session.account, "name": session.name}).fetchone()
    if holder is not None and holder["id"] != session.id:
        raise NameTaken(session.name, holder["id"])
