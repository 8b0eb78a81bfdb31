"""Keeps a second server away from a database: servers do not share sessions yet."""

import asyncio

import structlog
from psycopg import AsyncConnection, Error
from psycopg.rows import DictRow

from buntime.stores.postgres.connecting import Place, connect, probe
from buntime.stores.unusable import StoreUnusable

LOCK = 7097014860201004
CLAIM_SECONDS = 5.0  # how long a start waits while another server stops
CLAIMS = 25
RETRY_SECONDS = 1.0

log = structlog.get_logger()


class Alone:
    """Holds a lock of the database by a connection of its own, and takes it again when the connection was lost."""

    def __init__(self, place: Place, connection: AsyncConnection[DictRow]) -> None:
        """Use `claim`."""
        self._place = place
        self._keeping = asyncio.create_task(self._keep(connection), name="store-lock")

    @classmethod
    async def claim(cls, place: Place) -> "Alone":
        """Raises StoreUnusable."""
        connection = await connect(place)
        try:
            if await probe(connection):
                log.warning("store_not_locked", store=place.shown, why="a pooler keeps no locks")
                return cls(place, connection)
            for _ in range(CLAIMS):
                if await _try(connection):
                    return cls(place, connection)
                await asyncio.sleep(CLAIM_SECONDS / CLAIMS)
        except Error as failure:
            raise StoreUnusable(f"The store {place.shown} failed: {failure}.") from failure
        await connection.close()
        raise StoreUnusable(f"Another buntime server uses the store {place.shown}. Stop it first.")

    async def close(self) -> None:
        self._keeping.cancel()
        await asyncio.gather(self._keeping, return_exceptions=True)

    async def _keep(self, connection: AsyncConnection[DictRow]) -> None:
        while True:
            async with connection:
                await _until_lost(connection)
            connection = await self._again()

    async def _again(self) -> AsyncConnection[DictRow]:
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            try:
                connection = await connect(self._place)
                if await probe(connection) or await _try(connection):
                    return connection
                await connection.close()
            except (StoreUnusable, Error):
                continue
            log.error("store_used_by_another_server", store=self._place.shown)


async def _try(connection: AsyncConnection[DictRow]) -> bool:
    row = await (await connection.execute("SELECT pg_try_advisory_lock(%s) AS got", [LOCK])).fetchone()
    return row is not None and bool(row["got"])


async def _until_lost(connection: AsyncConnection[DictRow]) -> None:
    try:
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            await connection.execute("SELECT 1")
    except Error:
        return
