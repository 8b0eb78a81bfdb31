"""Hears of what other hosts store, and tells them.

PostgreSQL's notifications make it quick, and nothing relies on them. What is stored is looked for now and then too, and
more often while no notification can come. A pooler that shares connections among transactions passes none on.
"""

import asyncio
import os
import random
from collections.abc import Callable

import structlog
from psycopg import AsyncConnection, Error
from psycopg.rows import DictRow

from buntime.errors import Unavailable
from buntime.stores.postgres.connecting import Place, connect, probe
from buntime.stores.postgres.transactions import Transactions
from buntime.stores.unusable import StoreUnusable

CHANNEL = "buntime_stored"
KEYS_CHANNEL = "buntime_keys"  # a key was revoked, or an account has another status
LOOK_SECONDS = 5.0  # between two looks while notifications come
BLIND_SECONDS = 1.0  # the same while they do not
LATER_SECONDS = 0.003  # after a change, so that the answer to the request that made it comes first
GAP_SECONDS = 0.02  # between two notifications of one host: one tells of all that was stored meanwhile
PROBE_SECONDS = 2.0
CLEAN_SECONDS = 60.0

log = structlog.get_logger()


class Listening:
    def __init__(
        self,
        place: Place,
        transactions: Transactions,
        heard: Callable[[], None],
        wanted: Callable[[], bool],
        keys_changed: Callable[[], None],
    ) -> None:
        """`heard`: something may have been stored. `wanted`: whether this host must hear of it at once; otherwise it
        only looks, because a notification costs the database as much as it has listeners. `keys_changed`: keys may be
        revoked, which is rare and always heard. Call this on the event loop."""
        self._place, self._wanted, self._keys_changed = place, wanted, keys_changed
        self._transactions = transactions
        self._heard = heard
        self._news = asyncio.Event()
        self._name = os.urandom(8).hex()  # by which this host knows its own notifications
        self._loops = [
            asyncio.create_task(loop, name=f"store-{name}")
            for name, loop in (("listening", self._listen()), ("telling", self._tell()), ("cleaning", self._clean()))
        ]

    def stored(self) -> None:
        """This host has stored something: others will hear of it."""
        self._news.set()

    async def close(self) -> None:
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)

    async def _listen(self) -> None:
        told, is_away = False, False
        while True:
            try:
                connection = await connect(self._place)
            except StoreUnusable as failure:
                if not is_away:
                    log.error("store_away", why=str(failure))
                is_away = True
                self._heard()
                await asyncio.sleep(BLIND_SECONDS * random.uniform(0.5, 1.5))  # many hosts lose it at the same moment
                continue
            if is_away:
                is_away = False
                log.info("store_back")
            async with connection:
                try:
                    if await self._can_hear(connection):
                        told = False
                        await self._hear(connection)
                    elif not told:
                        told = True
                        log.warning("store_not_notified", pooler=await probe(connection), looks_every=BLIND_SECONDS)
                except (Error, Unavailable) as failure:
                    _tell_of(failure)
            self._heard()
            await asyncio.sleep(BLIND_SECONDS)

    async def _can_hear(self, connection: AsyncConnection[DictRow]) -> bool:
        """Whether what one connection tells reaches this one, which listens from now on."""
        await connection.execute(f"LISTEN {KEYS_CHANNEL}")
        await connection.execute(f"LISTEN {CHANNEL}")
        await self._transactions.all("tell_of_stored", host=self._name)
        async for _ in connection.notifies(timeout=PROBE_SECONDS, stop_after=1):
            return True
        return False

    async def _hear(self, connection: AsyncConnection[DictRow]) -> None:
        """Until the connection is lost. It listens at first."""
        self._heard()
        self._keys_changed()
        listens = True
        while True:
            if self._wanted() != listens:
                listens = not listens
                await connection.execute(f"LISTEN {CHANNEL}" if listens else f"UNLISTEN {CHANNEL}")
            heard = False
            async for told in connection.notifies(timeout=LOOK_SECONDS, stop_after=1):
                heard = True
                if told.channel == KEYS_CHANNEL:
                    self._keys_changed()
                elif told.payload != self._name:
                    self._heard()
                    await asyncio.sleep(GAP_SECONDS)  # what many hosts tell meanwhile is one occasion
            if not heard:
                self._heard()
                await connection.execute("SELECT 1")  # a connection that was cut looks like a silent one

    async def _tell(self) -> None:
        while await self._news.wait():
            await asyncio.sleep(LATER_SECONDS)
            self._news.clear()
            try:
                await self._transactions.all("tell_of_stored", host=self._name)
            except (Error, Unavailable) as failure:
                _tell_of(failure)
            await asyncio.sleep(GAP_SECONDS)

    async def _clean(self) -> None:
        while True:
            await asyncio.sleep(CLEAN_SECONDS)
            try:
                await self._transactions.drop_marks()
            except (Error, Unavailable) as failure:
                _tell_of(failure)


def _tell_of(failure: Exception) -> None:
    """A loop goes on. Calls by the pool fail while the database is away, which `_listen` says once."""
    if isinstance(failure, Error):
        log.warning("store_not_notified", why=" ".join(str(failure).split()))
