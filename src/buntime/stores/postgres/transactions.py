"""Reads and changes of the database: how often they are tried, and what is known of one whose connection was lost.

A change marks itself in its own transaction (`changes`). If the connection is lost during the commit, adding the same
mark again tells what became of it. The statement waits until the first transaction has ended. If that has committed,
the mark is there. If it has not, the new mark keeps it from ever committing.
"""

import asyncio
import math
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from uuid import UUID

from psycopg import AsyncConnection, AsyncPipeline, Error, InterfaceError, OperationalError
from psycopg.errors import (
    DeadlockDetected,
    FeatureNotSupported,
    PipelineAborted,
    ReadOnlySqlTransaction,
    SerializationFailure,
)
from psycopg.rows import DictRow
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from buntime.errors import CommitUnknown, MayNotAct, Unavailable
from buntime.fleet.members import Membership
from buntime.stores.postgres.queries import query

PATIENCE_SECONDS = 5.0  # for which a read or a change is tried again
ANSWER_SECONDS = 8.0  # after which a connection that does not answer is cut
LEAST_SECONDS = 0.2  # to answer, for a connection that came late
QUEUE_SECONDS = 30.0  # for which a change waits for others
OUTCOME_SECONDS = 10.0  # for which a lost commit is asked after; a transaction without a client ends after 5
BOUNDS_TRANSACTIONS = 170000  # the first version of PostgreSQL with transaction_timeout
KEPT_FOR_READS = 4  # connections
ROWS_AT_ONCE = 500  # that are read in one turn of the loop
TRIES = 20  # of one change that conflicts with others
# of disk, connections and so on; stopping; failing; locked
SHORTAGES = ("53", "57", "58", "55P03")
# Prepared before a migration of another host, or to a server that has become a standby: another connection helps.
OUTDATED = (FeatureNotSupported, ReadOnlySqlTransaction)

NO_MEMBER = "BF001"  # raised by `require_member` of the schema

# Whatever the database's default is: later statements must see what was committed while earlier ones waited for locks.
BEGIN, COMMIT = b"BEGIN ISOLATION LEVEL READ COMMITTED", b"COMMIT"

type Pool = AsyncConnectionPool[AsyncConnection[DictRow]]


class Lost(Exception):
    """The connection was lost, or the transaction gave way to another one. Nothing has changed."""


class Transaction:
    """One transaction. Statements without an answer are sent together with the next one that has one."""

    def __init__(self, connection: AsyncConnection[DictRow], pipeline: AsyncPipeline) -> None:
        self.connection = connection
        self.me: Membership | None = None  # as which member it stores something
        self._pipeline = pipeline

    async def send(self, name: str, /, **values: object) -> None:
        """What fails is raised by a later statement, or by the commit."""
        await self.connection.execute(query(name), values)

    async def send_many(self, name: str, /, rows: Sequence[Mapping[str, object]]) -> None:
        for row in rows:
            await self.connection.execute(query(name), row)

    async def send_columns(self, name: str, /, rows: Sequence[Mapping[str, object]]) -> None:
        """One statement for all rows: it gets a list for each column."""
        if rows:
            await self.send(name, **{column: [row[column] for row in rows] for column in rows[0]})

    async def run(self, name: str, /, **values: object) -> int:
        """Returns how many rows it has changed."""
        cursor = await self.connection.execute(query(name), values)
        await self._pipeline.sync()
        return cursor.rowcount

    async def first(self, name: str, /, **values: object) -> DictRow | None:
        rows = await self.all(name, **values)
        return rows[0] if rows else None

    async def only(self, name: str, /, **values: object) -> DictRow:
        row = await self.first(name, **values)
        assert row is not None, name
        return row

    async def all(self, name: str, /, **values: object) -> list[DictRow]:
        cursor = await self.connection.execute(query(name), values)
        await self._pipeline.sync()  # not only a flush: then the server knows that it waits for us, and for how long
        return await cursor.fetchall()


type Work[T] = Callable[[Transaction], Awaitable[T]]


class Transactions:
    """The database through a pool of connections in autocommit mode."""

    def __init__(self, pool: Pool, *, is_pooled: bool) -> None:
        """`is_pooled`: a pooler shares connections of the server among transactions, so settings do not stay."""
        self._pool = pool
        self._is_pooled = is_pooled
        self._is_away = False  # as the last call has seen it
        self._places = asyncio.Semaphore(pool.max_size - KEPT_FOR_READS)

    async def all(self, name: str, /, **values: object) -> list[DictRow]:
        """The rows of one statement. Raises Unavailable."""
        return await self._read(name, values)

    async def filtered(self, name: str, /, **values: object) -> list[DictRow]:
        """The same for a statement whose plan depends on which values are None: it is not prepared."""
        return await self._read(name, values, prepare=False)

    async def _read(self, name: str, values: Mapping[str, object], *, prepare: bool | None = None) -> list[DictRow]:
        async def ask(connection: AsyncConnection[DictRow]) -> list[DictRow]:
            cursor = await connection.execute(query(name), values, prepare=prepare)
            rows = await cursor.fetchmany(ROWS_AT_ONCE)
            while len(rows) < cursor.rowcount:
                await asyncio.sleep(0)  # reading tens of thousands takes a second, in which the lease must be renewed
                rows += await cursor.fetchmany(ROWS_AT_ONCE)
            return rows

        return await self.read(ask)

    async def read[T](self, ask: Callable[[AsyncConnection[DictRow]], Awaitable[T]]) -> T:
        """What a question of one statement returns. It may be asked several times. Raises Unavailable."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                async with self._connection(end, until_end=True) as connection:
                    return await ask(connection)
            except Lost as lost:
                await _wait_to_try(end, lost)

    async def first(self, name: str, /, **values: object) -> DictRow | None:
        rows = await self.all(name, **values)
        return rows[0] if rows else None

    async def change[T](self, work: Work[T]) -> T:
        """Commits the work whole or not at all, and returns what it returned. The work may be done several times.

        Raises Unavailable: CommitUnknown where it stays unknown whether the work was committed.
        """
        return await self._until_committed(lambda end: self._attempt(work, end))

    async def change_at_once(self, name: str, values: Mapping[str, object]) -> None:
        """The same for one statement that is a transaction of its own. It marks itself with the value `change`."""
        await self._until_committed(lambda end: self._attempt_at_once(name, values, end))

    async def _until_committed[T](self, attempt: Callable[[float], Awaitable[T]]) -> T:
        async with self._place():
            end, tries = time.monotonic() + PATIENCE_SECONDS, 0
            while True:
                try:
                    return await attempt(end)
                except Lost as lost:
                    tries += 1
                    await _wait_to_try(end if tries < TRIES else 0, lost)

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """One of the connections for changes. Changes that wait for each other leave some for reads."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS if self._is_away else QUEUE_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            raise Unavailable(_BUSY) from None
        try:
            yield
        finally:
            self._places.release()

    async def drop_marks(self) -> None:
        """Forgets marks that nobody asks after any more. Raises Unavailable."""
        await self.all("drop_changes")

    async def _attempt[T](self, work: Work[T], end: float) -> T:
        mark, committing = _new_mark(), False
        try:
            async with self._connection(end) as connection:
                async with connection.pipeline() as pipeline:
                    transaction = Transaction(connection, pipeline)
                    await connection.execute(BEGIN, prepare=False)
                    await transaction.send(_mark_for(connection), change=mark)
                    value = await work(transaction)
                    committing = True
                    await connection.execute(COMMIT, prepare=False)  # the end of the pipeline waits for its answer
                return value
        except Lost as lost:
            if not (committing and isinstance(lost.__cause__, _Cut)):
                raise
            if await self._has_committed(mark):
                return value
            raise

    async def _attempt_at_once(self, name: str, values: Mapping[str, object], end: float) -> None:
        mark = _new_mark()
        try:
            async with self._connection(end) as connection:
                if not self._is_pooled:
                    await connection.execute(query(name), {**values, "change": mark})
                    return
                async with connection.pipeline():
                    await connection.execute(BEGIN, prepare=False)
                    await connection.execute(query(name), {**values, "change": mark})
                    await connection.execute(COMMIT, prepare=False)
        except Lost as lost:
            if not (isinstance(lost.__cause__, _Cut) and await self._has_committed(mark)):
                raise

    async def _has_committed(self, mark: UUID) -> bool:
        end = time.monotonic() + OUTCOME_SECONDS
        while True:
            try:
                async with self._connection(end, until_end=True) as connection:
                    row = await (await connection.execute(query("outcome"), {"change": mark})).fetchone()
                    return row is not None and bool(row["made"])
            except (Lost, Unavailable) as failure:
                await _wait_to_try(end, failure, CommitUnknown(_UNKNOWN))

    @asynccontextmanager
    async def _connection(self, end: float, *, until_end: bool = False) -> AsyncIterator[AsyncConnection[DictRow]]:
        """Waits for one until `end`. It is cut when the block takes too long; with `until_end`, also at the end.

        Raises Lost and Unavailable for failures of the database within the block; Lost by _Cut if the connection is
        gone.
        """
        try:
            async with self._pool.connection(timeout=max(0.1, end - time.monotonic())) as connection:
                self._is_away = False
                with _cut_if_silent(connection, _time_to_answer(end if until_end else math.inf)):
                    try:
                        yield connection
                    except (DeadlockDetected, SerializationFailure) as conflict:
                        raise Lost from conflict
                    except OUTDATED as failure:
                        await connection.close()
                        raise Lost from failure
                    except Error as failure:
                        if failure.sqlstate == NO_MEMBER:
                            raise MayNotAct from failure
                        if connection.closed or _is_ours(failure):
                            await connection.close()
                            raise Lost from _Cut(str(failure))
                        if (failure.sqlstate or "").startswith(SHORTAGES):
                            raise Unavailable(_AWAY) from failure
                        raise
                    finally:
                        if not connection.closed:
                            await _end_transaction(connection)
        except (PoolTimeout, PoolClosed) as failure:
            self._is_away = True
            raise Unavailable(_AWAY) from failure


class _Cut(Exception):
    """The connection is gone."""


_AWAY = "The server cannot reach its database right now. Try again shortly."
_BUSY = "Too many changes wait for the database right now. Try again shortly."
_UNKNOWN = "The server lost its database while it stored this. Look whether it is done before you try again."


def _is_ours(failure: Error) -> bool:
    """Whether the client's library has failed, and not the server: it may not know yet that the connection is gone."""
    about_it = isinstance(failure, OperationalError | InterfaceError) and not isinstance(failure, PipelineAborted)
    return about_it and failure.sqlstate is None


async def _wait_to_try(end: float, failure: Exception, late: Unavailable | None = None) -> None:
    """Waits a little, at random. Raises Unavailable, or `late`, when the time is over."""
    pause = random.uniform(0.005, 0.1)
    if time.monotonic() + pause > end:
        raise late or Unavailable(_AWAY) from failure
    await asyncio.sleep(pause)


def _time_to_answer(end: float) -> float:
    return min(ANSWER_SECONDS, max(LEAST_SECONDS, end - time.monotonic()))


async def _end_transaction(connection: AsyncConnection[DictRow]) -> None:
    with suppress(Error):
        await connection.rollback()


class _cut_if_silent:  # noqa: N801
    """Cuts the connection when the block takes too long, so that what waits for an answer fails."""

    def __init__(self, connection: AsyncConnection[DictRow], seconds: float) -> None:
        self._connection = connection
        self._seconds = seconds

    def __enter__(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._cut)

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _cut(self) -> None:
        with suppress(Error, OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as same:
            same.shutdown(socket.SHUT_RDWR)


def _mark_for(connection: AsyncConnection[DictRow]) -> str:
    return "mark_and_bound" if connection.info.server_version >= BOUNDS_TRANSACTIONS else "mark"


def _new_mark() -> UUID:
    """By time, so that neighbours in the index are made at the same time."""
    return UUID(bytes=time.time_ns().to_bytes(8) + os.urandom(8))
