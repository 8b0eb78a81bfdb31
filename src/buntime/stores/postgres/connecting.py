"""Connections to the database. What is said of it never has the password."""

import logging
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection, Connection, ConnectionInfo, Error, IsolationLevel, ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from buntime.stores.postgres.texts import adapters
from buntime.stores.postgres.transactions import PATIENCE_SECONDS, Pool
from buntime.stores.unusable import StoreUnusable

POOL_SIZE, LEAST_OPEN = 16, 2  # they are used by turns, and each knows its statements only after some uses
RECONNECT_SECONDS = 2.0  # for which a lost connection is made again without a request: longer pauses would grow
CONNECT_SECONDS = 5
OLDEST_SERVER = 150000
PREPARE_AFTER = 2  # uses of a statement on one connection
# A host that is cut off must notice within seconds. The operator's own values win.
_DEFAULTS: dict[str, Any] = {
    "application_name": "buntime",
    "connect_timeout": CONNECT_SECONDS,
    "target_session_attrs": "read-write",  # of several hosts in the address, the one that is no standby
    "tcp_user_timeout": 8000,  # milliseconds
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where the database is."""

    conninfo: str  # may have a password: never shown
    shown: str


def place_of(url: str) -> Place:
    """Raises StoreUnusable."""
    try:
        given = conninfo_to_dict(url)
        shown = f"postgresql://{given.get('host') or ''}/{given.get('dbname') or ''}"
        return Place(
            make_conninfo(url, **{name: value for name, value in _DEFAULTS.items() if name not in given}), shown
        )
    except ProgrammingError:
        raise StoreUnusable("BUNTIME_STORE is not an address of PostgreSQL: postgresql://USER@HOST/DATABASE.") from None


def with_password(url: str, password: str) -> str:
    """The address with the password, unless it has one."""
    return url if "password" in conninfo_to_dict(url) else make_conninfo(url, password=password)


async def connect(place: Place) -> AsyncConnection[DictRow]:
    """One connection, also through a pooler: it prepares no statements. Raises StoreUnusable."""
    try:
        return await AsyncConnection[DictRow].connect(place.conninfo, **_settings(is_pooled=True))
    except Error as failure:
        raise StoreUnusable(f"The store {place.shown} cannot be reached: {_line(failure)}.") from failure


def connect_blocking(place: Place) -> Connection[DictRow]:
    """The same for a command: a `with` block closes it. Raises StoreUnusable, also when there are no tables."""
    try:
        connection = Connection[DictRow].connect(place.conninfo, **_settings(is_pooled=True))
        connection.isolation_level = IsolationLevel.READ_COMMITTED
        if connection.execute("SELECT to_regclass('buntime_schema') AS found").fetchone() == {"found": None}:
            connection.close()
            raise StoreUnusable(f"No server ever ran on the store {place.shown}. Start one with `buntime serve`.")
    except Error as failure:
        raise StoreUnusable(f"The store {place.shown} cannot be reached: {_line(failure)}.") from failure
    return connection


def check_blocking(place: Place) -> None:
    """Raises StoreUnusable for a database that cannot be reached, or used."""
    try:
        with Connection[DictRow].connect(place.conninfo, **_settings(is_pooled=True)) as connection:
            require_fit(connection.info, place.shown)
    except Error as failure:
        raise StoreUnusable(f"The store {place.shown} cannot be reached: {_line(failure)}.") from failure


def require_fit(info: ConnectionInfo, where: str) -> None:
    """Raises StoreUnusable for a server that is too old, or another encoding."""
    if info.server_version < OLDEST_SERVER:
        raise StoreUnusable(f"The store {where} is PostgreSQL {info.server_version // 10_000}; it must be at least 15.")
    encoding = info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise StoreUnusable(f"The store {where} has the encoding {encoding}; create the database with UTF8.")


def pool_of(place: Place, *, is_pooled: bool) -> Pool:
    """A pool that is not open yet. `is_pooled`: a pooler shares connections of the server among transactions."""
    logging.getLogger("psycopg").setLevel(logging.ERROR)  # `listening` says when the database is away
    return AsyncConnectionPool(
        place.conninfo,
        connection_class=AsyncConnection[DictRow],
        kwargs=_settings(is_pooled=is_pooled),
        configure=None if is_pooled else _configure,
        min_size=LEAST_OPEN,
        max_size=POOL_SIZE,
        open=False,
        timeout=PATIENCE_SECONDS,
        reconnect_timeout=RECONNECT_SECONDS,
        name="store",
    )


async def _configure(connection: AsyncConnection[DictRow]) -> None:
    """Statements read few rows. Where the planner guesses that one reads many, compiling it takes a second. One that is
    a transaction of its own has the isolation that BEGIN gives the others."""
    await connection.execute("SET jit = off; SET default_transaction_isolation = 'read committed'")


async def probe(connection: AsyncConnection[DictRow]) -> bool:
    """Whether a pooler is in between: then the server has another process for us than the one that greeted us."""
    found = await (await connection.execute("SELECT pg_backend_pid() AS pid")).fetchone()
    return found is not None and found["pid"] != connection.info.backend_pid


def _settings(*, is_pooled: bool) -> dict[str, Any]:
    """Statements are prepared where a connection stays with one process of the server."""
    prepare = None if is_pooled else PREPARE_AFTER
    return {"autocommit": True, "row_factory": dict_row, "context": adapters(), "prepare_threshold": prepare}


def _line(failure: Error) -> str:
    """What failed, on one line."""
    return " ".join(str(failure).split()).rstrip(".")
