"""Names of images in SQL. The store's writer and the command line use these functions, each with its own connection.

Call the functions that change something inside a transaction.
"""

import sqlite3
from collections.abc import Sequence

from buntime.errors import ImageNotFound
from buntime.image import DEFAULT_IMAGE, OPERATOR, NamedImage, is_always_kept
from buntime.session import Session
from buntime.stores.rows.kept import image_of, image_row

_PUT = """
INSERT INTO images (account, name, image, size, created_at) VALUES (:account, :name, :image, :size, :created_at)
ON CONFLICT (account, name) DO UPDATE SET image = excluded.image, size = excluded.size, created_at = excluded.created_at
"""

# '' sorts before every account, so an account's own name comes first
_FIND = "SELECT * FROM images WHERE account IN (?, ?) AND name = ? ORDER BY account DESC LIMIT 1"

# the columns that refer to an image
_REFERENCES = (
    ("images", "image"),
    ("sessions", "image"),
    ("snapshots", "image"),
    ("layers", "image"),
    ("made_images", "base"),
)
_USED_IMAGES = " UNION ".join(f"SELECT {column} FROM {table}" for table, column in _REFERENCES)

_ACCOUNT_HAS = "SELECT " + " OR ".join(
    f"EXISTS (SELECT 1 FROM {table} WHERE image = :image AND account = :account)"
    for table in ("snapshots", "sessions", "layers")
)


def used(image: str) -> str:
    """An SQL condition: something refers to the image, which is an SQL expression."""
    return " OR ".join(f"EXISTS (SELECT 1 FROM {table} WHERE {column} = {image})" for table, column in _REFERENCES)


def put_image(connection: sqlite3.Connection, image: NamedImage) -> None:
    """The name stands for this image from now on."""
    connection.execute(_PUT, image_row(image))


def find_image(connection: sqlite3.Connection, account_id: str, name: str) -> NamedImage | None:
    row = connection.execute(_FIND, (account_id, OPERATOR, name)).fetchone()
    return None if row is None else image_of(row)


def list_images(connection: sqlite3.Connection, account_id: str) -> Sequence[NamedImage]:
    """What the account's names stand for, sorted by name."""
    rows = connection.execute(
        "SELECT * FROM images WHERE account IN (?, ?) ORDER BY name, account", (account_id, OPERATOR)
    )
    return list({row["name"]: image_of(row) for row in rows}.values())


def remove_image(connection: sqlite3.Connection, account_id: str, name: str) -> bool:
    done = connection.execute("DELETE FROM images WHERE account = ? AND name = ?", (account_id, name))
    return done.rowcount == 1


def drop_names_of(connection: sqlite3.Connection, account_id: str) -> int:
    return connection.execute("DELETE FROM images WHERE account = ?", (account_id,)).rowcount


def used_images(connection: sqlite3.Connection) -> set[str]:
    """Ids of the images that anything refers to."""
    return {row[0] for row in connection.execute(_USED_IMAGES)}


def require_image(connection: sqlite3.Connection, session: Session) -> None:
    """Raises ImageNotFound if the session's image has lost the name by which the session was given it, and nothing of
    the account has the image."""
    if session.image_name == DEFAULT_IMAGE:
        return
    found = find_image(connection, session.account, session.image_name)
    if found is not None and found.id == session.image:
        return
    if not connection.execute(_ACCOUNT_HAS, {"image": session.image, "account": session.account}).fetchone()[0]:
        raise ImageNotFound(session.image_name)


def require_kept(connection: sqlite3.Connection, image_id: str, name: str) -> None:
    """Raises ImageNotFound with the name if the image can be removed at any moment, because nothing refers to it."""
    if is_always_kept(image_id):
        return
    if not connection.execute(f"SELECT {used(':image')}", {"image": image_id}).fetchone()[0]:
        raise ImageNotFound(name)
