"""Layers in SQL. Changes run inside a transaction and check the stored state."""

import sqlite3
from collections.abc import Iterable, Sequence

from buntime.errors import SnapshotNotFound
from buntime.session import DESTROYED, SavedVolume
from buntime.snapshot import Layer
from buntime.stores.rows.kept import layer_of, layer_row
from buntime.stores.rows.sessions import saved_to_text
from buntime.stores.sqlite.images import require_kept

_ADD = """
INSERT INTO layers (id, account, image, size, created_at, key, saved, fork)
VALUES (:id, :account, :image, :size, :created_at, :key, :saved, :fork)
"""

# a condemned layer serves no fork, so a fork that comes back can add another one
_CONDEMN = """
UPDATE layers SET key = :destroyed, fork = ''
WHERE key <> :destroyed
  AND NOT (fork <> '' AND created_at > :before)
  AND NOT EXISTS (SELECT 1 FROM snapshots WHERE layer = layers.id)
  AND NOT EXISTS (SELECT 1 FROM made_images WHERE layer = layers.id)
"""

# for the plan of the account; a layer without a reference is that of a fork, or is about to be condemned
_COUNTED = """
FROM layers
WHERE account = ? AND key <> ?
  AND (EXISTS (SELECT 1 FROM snapshots WHERE layer = layers.id AND NOT is_automatic)
       OR EXISTS (SELECT 1 FROM made_images WHERE layer = layers.id)
       OR NOT EXISTS (SELECT 1 FROM snapshots WHERE layer = layers.id))
"""

_NUMBERS = "SELECT count(*), coalesce(sum(size), 0), count(*) - count(saved) FROM layers WHERE key <> ?"


def add_layer(connection: sqlite3.Connection, layer: Layer) -> None:
    """Raises ImageNotFound if the image below is being removed, and ValueError if the id or the fork is taken."""
    require_kept(connection, layer.image, layer.image)
    put_layer(connection, layer)


def put_layer(connection: sqlite3.Connection, layer: Layer) -> None:
    """Adds a layer whose image is known to be kept. Raises ValueError if the id or the fork is taken."""
    try:
        connection.execute(_ADD, layer_row(layer))
    except sqlite3.IntegrityError as refused:
        raise ValueError(f"layer {layer.id}: the id is taken, or its fork has another one") from refused


def add_or_require_layer(connection: sqlite3.Connection, layer: Layer | None, layer_id: str) -> None:
    """Adds the layer if there is one. Otherwise raises SnapshotNotFound unless the store has one that will stay."""
    if layer is not None:
        add_layer(connection, layer)
        return
    found = connection.execute("SELECT 1 FROM layers WHERE id = ? AND key <> ?", (layer_id, DESTROYED)).fetchone()
    if found is None:
        raise SnapshotNotFound("")


def get_layer(connection: sqlite3.Connection, layer_id: str) -> Layer | None:
    return _first(connection.execute("SELECT * FROM layers WHERE id = ?", (layer_id,)))


def find_fork_layer(connection: sqlite3.Connection, account_id: str, key: str) -> Layer | None:
    # the index has no row with an empty fork
    return _first(
        connection.execute("SELECT * FROM layers WHERE account = ? AND fork = ? AND fork <> ''", (account_id, key))
    )


def all_layers(connection: sqlite3.Connection) -> Sequence[Layer]:
    """Oldest first, ties by id. Includes condemned ones."""
    return [layer_of(row) for row in connection.execute("SELECT * FROM layers ORDER BY created_at, id")]


def counted_layers(connection: sqlite3.Connection, account_id: str) -> Sequence[Layer]:
    """See `ports.Store.counted_layers`."""
    rows = connection.execute(f"SELECT * {_COUNTED} ORDER BY created_at, id", (account_id, DESTROYED))
    return [layer_of(row) for row in rows]


def counted_bytes(connection: sqlite3.Connection, account_id: str) -> int:
    """The sum of their sizes."""
    return int(connection.execute(f"SELECT coalesce(sum(size), 0) {_COUNTED}", (account_id, DESTROYED)).fetchone()[0])


def save_layer(connection: sqlite3.Connection, layer_id: str, saved: SavedVolume) -> bool:
    done = connection.execute(
        "UPDATE layers SET saved = ? WHERE id = ? AND key <> ? AND saved IS NULL",
        (saved_to_text(saved), layer_id, DESTROYED),
    )
    return done.rowcount == 1


def end_fork(connection: sqlite3.Connection, layer_id: str) -> None:
    connection.execute("UPDATE layers SET fork = '' WHERE id = ?", (layer_id,))


def condemn_layers(connection: sqlite3.Connection, before: int) -> tuple[int, Sequence[Layer]]:
    """Returns how many were condemned now, and every condemned layer."""
    condemned = connection.execute(_CONDEMN, {"destroyed": DESTROYED, "before": before}).rowcount
    rows = connection.execute("SELECT * FROM layers WHERE key = ? ORDER BY created_at, id", (DESTROYED,))
    return condemned, [layer_of(row) for row in rows]


def remove_layer(connection: sqlite3.Connection, layer_id: str) -> None:
    """Raises ValueError if the layer is not condemned."""
    connection.execute("DELETE FROM layers WHERE id = ? AND key = ?", (layer_id, DESTROYED))
    if get_layer(connection, layer_id) is not None:
        raise ValueError(f"layer {layer_id} is not condemned")


def _first(rows: Iterable[sqlite3.Row]) -> Layer | None:
    return next((layer_of(row) for row in rows), None)


def layer_numbers(connection: sqlite3.Connection) -> tuple[int, int, int]:
    """How many layers are not condemned, their bytes, and how many of them the archive does not have."""
    row = connection.execute(_NUMBERS, (DESTROYED,)).fetchone()
    return row[0], row[1], row[2]
