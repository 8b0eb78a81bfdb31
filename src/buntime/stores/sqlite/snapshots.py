"""Snapshots in SQL. Changes run inside a transaction and check the stored state."""

import sqlite3
from collections.abc import Sequence

from buntime.errors import ResourceLimitExceeded, SessionNotFound
from buntime.session import Session, State
from buntime.snapshot import Layer, Snapshot
from buntime.stores.rows.kept import snapshot_of, snapshot_row
from buntime.stores.sqlite.images import require_kept
from buntime.stores.sqlite.layers import add_or_require_layer, put_layer
from buntime.stores.sqlite.sessions import change_session
from buntime.usage import Reading

_ADD = """
INSERT INTO snapshots (id, account, session, layer, image, image_name, size, created_at, expires_at, name, metadata,
                       is_automatic)
VALUES (:id, :account, :session, :layer, :image, :image_name, :size, :created_at, :expires_at, :name, :metadata,
        :is_automatic)
"""

_WANTED = """
FROM snapshots
WHERE account = :account AND (expires_at IS NULL OR expires_at > :now)
  AND session = coalesce(:session, session) AND name IS coalesce(:name, name)
"""

_COUNT = """
SELECT count(*) FROM snapshots
WHERE account = ? AND NOT is_automatic AND (expires_at IS NULL OR expires_at > ?)
"""

_COUNT_ALL = "SELECT count(*) FROM snapshots WHERE NOT is_automatic AND (expires_at IS NULL OR expires_at > ?)"


def add_snapshot(connection: sqlite3.Connection, snapshot: Snapshot, layer: Layer | None, limit: int) -> None:
    """Raises SessionNotFound, ResourceLimitExceeded, SnapshotNotFound, ImageNotFound, and ValueError if an id is
    taken."""
    found = connection.execute("SELECT state FROM sessions WHERE id = ?", (snapshot.session,)).fetchone()
    if found is None or found["state"] == State.DELETING:
        raise SessionNotFound(snapshot.session)
    if count_snapshots(connection, snapshot.account, snapshot.created_at) >= limit:
        raise ResourceLimitExceeded("snapshots", limit, "account", "")
    add_or_require_layer(connection, layer, snapshot.layer)
    _put(connection, snapshot)


def restore_session(
    connection: sqlite3.Connection,
    old: Session,
    new: Session,
    before: Snapshot,
    layer: Layer,
    reading: Reading | None = None,
) -> None:
    """Raises ImageNotFound, StaleSession, and ValueError if an id is taken."""
    if new.image != old.image:
        require_kept(connection, new.image, new.image_name)
    change_session(connection, old, new, reading)
    connection.execute("DELETE FROM snapshots WHERE session = ? AND is_automatic", (new.id,))
    put_layer(connection, layer)  # the session had the layer's image until now
    _put(connection, before)


def get_snapshot(connection: sqlite3.Connection, snapshot_id: str) -> Snapshot | None:
    row = connection.execute("SELECT * FROM snapshots WHERE id = ?", (snapshot_id,)).fetchone()
    return None if row is None else snapshot_of(row)


def list_snapshots(
    connection: sqlite3.Connection,
    account_id: str,
    now: int,
    session: str | None,
    name: str | None,
    limit: int,
    offset: int,
) -> tuple[Sequence[Snapshot], int]:
    """See `ports.Store.list_snapshots`. SQLite gives a new row a rowid above all others."""
    wanted = {"account": account_id, "now": now, "session": session, "name": name}
    total = connection.execute(f"SELECT count(*) {_WANTED}", wanted).fetchone()[0]
    rows = connection.execute(
        f"SELECT * {_WANTED} ORDER BY created_at DESC, rowid DESC LIMIT :limit OFFSET :offset",
        wanted | {"limit": limit, "offset": offset},
    )
    return [snapshot_of(row) for row in rows], total


def count_snapshots(connection: sqlite3.Connection, account_id: str, now: int) -> int:
    """Those that are neither automatic nor expired."""
    return int(connection.execute(_COUNT, (account_id, now)).fetchone()[0])


def count_all_snapshots(connection: sqlite3.Connection, now: int) -> int:
    """The same of all accounts."""
    return int(connection.execute(_COUNT_ALL, (now,)).fetchone()[0])


def remove_snapshot(connection: sqlite3.Connection, snapshot_id: str) -> bool:
    return connection.execute("DELETE FROM snapshots WHERE id = ?", (snapshot_id,)).rowcount == 1


def drop_snapshots(connection: sqlite3.Connection, now: int) -> int:
    return connection.execute("DELETE FROM snapshots WHERE expires_at <= ?", (now,)).rowcount


def drop_snapshots_of(connection: sqlite3.Connection, account_id: str) -> int:
    return connection.execute("DELETE FROM snapshots WHERE account = ?", (account_id,)).rowcount


def _put(connection: sqlite3.Connection, snapshot: Snapshot) -> None:
    try:
        connection.execute(_ADD, snapshot_row(snapshot))
    except sqlite3.IntegrityError as refused:
        raise ValueError(f"snapshot id {snapshot.id} is taken") from refused
