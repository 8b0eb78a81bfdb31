"""Opens the store that the operator configured: SQLite in the data directory, or PostgreSQL.

psycopg is imported only where it is used: a server with SQLite needs it neither on its disk nor in its memory.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from buntime.config import Config
from buntime.fleet.members import Membership
from buntime.ports import Store
from buntime.stores import store_file
from buntime.stores.command_store import CommandStore
from buntime.stores.unusable import StoreUnusable

if TYPE_CHECKING:
    from buntime.stores.postgres.connecting import Place
    from buntime.stores.postgres.store import PostgresStore


@asynccontextmanager
async def opened_file(config: Config) -> AsyncIterator[Store]:
    """The store in the data directory, which one server uses alone. Raises StoreUnusable."""
    from buntime.stores.sqlite.store import SqliteStore

    file = await SqliteStore.open(store_file(config))
    try:
        yield file
    finally:
        await file.close()


@asynccontextmanager
async def opened_database(
    config: Config, host: str, membership: Callable[[], Membership]
) -> AsyncIterator["PostgresStore"]:
    """The store in PostgreSQL, which the hosts of a fleet share: see `PostgresStore.open`. Raises StoreUnusable."""
    place = place_of(config)
    from buntime.stores.postgres.store import PostgresStore

    database = await PostgresStore.open(place, host, membership)
    try:
        yield database
    finally:
        await database.close()


@contextmanager
def command_store(config: Config) -> Iterator[CommandStore]:
    """The store in one transaction, for a command.

    Raises StoreUnusable, FileNotFoundError where no server ever ran, other OSErrors, and Unavailable.
    """
    if config.store:
        place = place_of(config)
        from buntime.stores.postgres import commands as postgres

        with postgres.command_store(place) as store:
            yield store
        return
    from buntime.stores.sqlite import commands as sqlite

    store_file(config).stat()
    with sqlite.command_store(store_file(config)) as store:
        yield store


def check(config: Config) -> None:
    """Raises StoreUnusable if the database cannot be reached or used. A start looks at SQLite's file itself."""
    if config.store:
        place = place_of(config)
        from buntime.stores.postgres.connecting import check_blocking

        check_blocking(place)


def with_password(config: Config, environment: Mapping[str, str]) -> Config:
    """With what PGPASSWORD says, so that the variable can be removed. Raises StoreUnusable."""
    if not config.store or not environment.get("PGPASSWORD"):
        return config
    place_of(config)  # refuses what is no address
    from buntime.stores.postgres import connecting

    return replace(config, store=connecting.with_password(config.store, environment["PGPASSWORD"]))


def place_of(config: Config) -> "Place":
    """Raises StoreUnusable."""
    try:
        from buntime.stores.postgres import connecting
    except ImportError:
        raise StoreUnusable("BUNTIME_STORE needs psycopg: install the extra `postgres` of buntime.") from None
    return connecting.place_of(config.store)
