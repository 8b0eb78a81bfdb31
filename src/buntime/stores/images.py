"""Names of images in SQL. The store's writer and the command line use these functions, each with its own connection.

Call the functions that change something inside a transaction.
"""

import sqlite3
from collections.abc import Sequence

from buntime.errors import ImageNotFound
from buntime.image import DEFAULT_IMAGE, OPERATOR, NamedImage
from buntime.session import Session

_PUT = """
INSERT INTO images (account, name, image, size, created_at) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (account, name) DO UPDATE SET image = excluded.image, size = excluded.size, created_at = excluded.created_at
"""

# '' sorts before every account, so an account's own name comes first
_FIND = "SELECT * FROM images WHERE account IN (?, ?) AND name = ? ORDER BY account DESC LIMIT 1"


def put_image(connection: sqlite3.Connection, image: NamedImage) -> None:
    """The name stands for this image from now on."""
    connection.execute(_PUT, (image.account, image.name, image.id, image.size, image.created_at))


def find_image(connection: sqlite3.Connection, account_id: str, name: str) -> NamedImage | None:
    row = connection.execute(_FIND, (account_id, OPERATOR, name)).fetchone()
    return None if row is None else _image(row)


def list_images(connection: sqlite3.Connection, account_id: str) -> Sequence[NamedImage]:
    """What the account's names stand for, sorted by name."""
    rows = connection.execute(
        "SELECT * FROM images WHERE account IN (?, ?) ORDER BY name, account", (account_id, OPERATOR)
    )
    return list({row["name"]: _image(row) for row in rows}.values())


def remove_image(connection: sqlite3.Connection, account_id: str, name: str) -> bool:
    done = connection.execute("DELETE FROM images WHERE account = ? AND name = ?", (account_id, name))
    return done.rowcount == 1


def used_images(connection: sqlite3.Connection) -> set[str]:
    """Ids of the images that a name or a session refers to."""
    return {row[0] for row in connection.execute("SELECT image FROM images UNION SELECT image FROM sessions")}


def require_image(connection: sqlite3.Connection, session: Session) -> None:
    """Raises ImageNotFound if the session's image has lost the name by which the session was given it."""
    if session.image_name == DEFAULT_IMAGE:
        return
    found = find_image(connection, session.account, session.image_name)
    if found is None or found.id != session.image:
        raise ImageNotFound(session.image_name)


def _image(row: sqlite3.Row) -> NamedImage:
    return NamedImage(row["name"], row["image"], row["size"], row["created_at"], row["account"])
