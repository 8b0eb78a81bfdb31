"""Images that accounts make in SQL. Changes run inside a transaction and check the stored state."""

import sqlite3
from collections.abc import Sequence

from buntime.errors import ResourceLimitExceeded
from buntime.image import NamedImage
from buntime.snapshot import Layer, MadeImage
from buntime.stores.rows.kept import made_of, made_row
from buntime.stores.sqlite.images import put_image, used
from buntime.stores.sqlite.layers import add_or_require_layer

_ADD = """
INSERT INTO made_images (id, base, layer, env, size, created_at) VALUES (:id, :base, :layer, :env, :size, :created_at)
ON CONFLICT (id) DO NOTHING
"""

_NAMES = "SELECT count(*) AS names, total(name = ?) AS has_it FROM images WHERE account = ?"

_UNUSED = f"SELECT id FROM made_images AS made WHERE NOT ({used('made.id')}) ORDER BY created_at, id"


def add_made_image(
    connection: sqlite3.Connection, made: MadeImage, name: NamedImage, layer: Layer | None, limit: int
) -> None:
    """Raises ResourceLimitExceeded, SnapshotNotFound, ImageNotFound, and ValueError if the layer's id is taken."""
    found = connection.execute(_NAMES, (name.name, name.account)).fetchone()
    if found["names"] >= limit and not found["has_it"]:
        raise ResourceLimitExceeded("images", limit, "account", "")
    add_or_require_layer(connection, layer, made.layer)
    connection.execute(_ADD, made_row(made))
    put_image(connection, name)


def get_made_image(connection: sqlite3.Connection, image_id: str) -> MadeImage | None:
    row = connection.execute("SELECT * FROM made_images WHERE id = ?", (image_id,)).fetchone()
    return None if row is None else made_of(row)


def all_made_images(connection: sqlite3.Connection) -> Sequence[MadeImage]:
    """Oldest first, ties by id."""
    return [made_of(row) for row in connection.execute("SELECT * FROM made_images ORDER BY created_at, id")]


def drop_made_images(connection: sqlite3.Connection) -> Sequence[str]:
    """Removes those that nothing refers to, and returns their ids."""
    dropped = [row["id"] for row in connection.execute(_UNUSED)]
    connection.executemany("DELETE FROM made_images WHERE id = ?", [(image_id,) for image_id in dropped])
    return dropped
