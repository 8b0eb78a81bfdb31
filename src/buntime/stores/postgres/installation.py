"""The name of one database, which stays the same when it is dumped and restored."""

import secrets

from psycopg import Error

from buntime.stores.postgres.connecting import Place, connect_blocking
from buntime.stores.unusable import StoreUnusable

_LOCK = 7097014860201005
_TABLE = "CREATE TABLE IF NOT EXISTS buntime_installation (id text NOT NULL)"
_ADD = "INSERT INTO buntime_installation SELECT %s WHERE NOT EXISTS (SELECT FROM buntime_installation)"


def installation(place: Place) -> str:
    """Gives the database a name if it has none. Raises StoreUnusable."""
    try:
        with connect_blocking(place) as connection, connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
            connection.execute(_TABLE)
            connection.execute(_ADD, [secrets.token_hex(16)])
            row = connection.execute("SELECT id FROM buntime_installation").fetchone()
    except Error as failure:
        raise StoreUnusable(f"The store {place.shown} failed: {' '.join(str(failure).split())}.") from failure
    assert row is not None
    return str(row["id"])
