"""Images that accounts make in SQL. Changes run inside a transaction and check the stored state."""

import json
import sqlite3
from collections.abc import Sequence

from buntime.errors import ResourceLimitExceeded
from buntime.image import NamedImage
from buntime.snapshot import Layer, MadeImage
from buntime.stores.sqlite.images import put_image, used
from buntime.stores.sqlite.layers import add_or_require_layer

_ADD = """
INSERT INTO made_images (id, base, layer, env, size, created_at) VALUES (?, ?, ?, ?, ?, ?)
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
    row = (made.id, made.base, made.layer, json.dumps(dict(made.env)), made.size, made.created_at)
    connection.execute(_ADD, row)
    put_image(connection, name)


def get_made_image(connection: sqlite3.Connection, image_id: str) -> MadeImage | None:
    row = connection.execute("SELECT * FROM made_images WHERE id = ?", (image_id,)).fetchone()
    return None if row is None else _made(row)


def all_made_images(connection: sqlite3.Connection) -> Sequence[MadeImage]:
    """Oldest first, ties by id."""
    return [_made(row) for row in connection.execute("SELECT * FROM made_images ORDER BY created_at, id")]


def drop_made_images(connection: sqlite3.Connection) -> Sequence[str]:
    """Removes those that nothing refers to, and returns their ids."""
    dropped = [row["id"] for row in connection.execute(_UNUSED)]
    connection.executemany("DELETE FROM made_images WHERE id = ?", [(image_id,) for image_id in dropped])
    return dropped


def _made(row: sqlite3.Row) -> MadeImage:
    return MadeImage(
        id=row["id"],
        base=row["base"],
        layer=row["layer"],
        env=json.loads(row["env"]),
        size=row["size"],
        created_at=row["created_at"],
    )
