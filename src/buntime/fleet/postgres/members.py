"""`Members` in PostgreSQL 15 or later."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from buntime.errors import Unavailable
from buntime.fleet.budget import BUDGET
from buntime.fleet.members import (
    DRAIN_SECONDS,
    Description,
    Fenced,
    HostState,
    IdTaken,
    Member,
    Membership,
    OutOfDate,
    SessionCounts,
)
from buntime.fleet.postgres.statements import IDLE, statements_of
from buntime.session import State

SQL = statements_of(Path(__file__).with_name("members.sql"))
AWAY = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,  # another machine becomes the primary
    psycopg.errors.IdleInTransactionSessionTimeout,  # this host was stopped in the middle
    psycopg.errors.TransactionTimeout,
    PoolTimeout,
)
LEASE = timedelta(seconds=BUDGET.lease)


class PostgresMembers:
    """`pool`: a renewal waits for a free connection, so it is best a pool of its own. `schema`: the newest version of
    the tables that this program knows; None: it is not compared."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection[Any]], schema: int | None = None) -> None:
        self._pool, self._schema = pool, schema

    async def join(self, host: str, description: Description, after: int = 0) -> Membership:
        said = {"id": host, "after": after, "lease": LEASE, **self._said(description)}
        async with self._transaction() as cursor:
            await cursor.execute(SQL["add"], said)
            while (added := await cursor.fetchone()) is None:
                before = (await _lock(cursor, host)).get(host)
                if before is None:  # it has just been removed
                    await cursor.execute(SQL["add"], said)
                    continue
                if before["runs"] and before["address"] != description.address:
                    raise IdTaken
                await cursor.execute(SQL["join_again"], said)
            await self._require_schema(cursor)  # last: a migration that this join has waited for counts
        return Membership(host, added["incarnation"])

    async def renew(self, me: Membership, capacity: Mapping[str, object]) -> HostState:
        given = {"id": me.host, "incarnation": me.incarnation, "lease": LEASE, "capacity": self._report(capacity)}
        async with self._statement() as cursor:
            await cursor.execute(SQL["renew"], given)
            row = await cursor.fetchone()
        if row is None:
            raise Fenced
        return HostState(row["state"])

    async def leave(self, me: Membership) -> None:
        async with self._transaction() as cursor:
            _require(await _lock(cursor, me.host), me)
            await cursor.execute(SQL["leave"], {"id": me.host})

    async def take_over(self, me: Membership, lost: Member) -> bool:
        async with self._transaction() as cursor:
            rows: dict[str, DictRow] = {}
            for host in sorted((me.host, lost.id)):  # in one order, so two that take over cannot block each other
                rows |= await (_stand(cursor, host) if host == me.host else _lock(cursor, host))
            _require(rows, me)
            row = rows.get(lost.id)
            if row is None or row["taken_over"] or row["runs"]:
                return False
            if (row["incarnation"], row["renewals"]) != (lost.incarnation, lost.renewals):
                return False
            await cursor.execute(SQL["give_up"], {"id": lost.id})
            return True

    async def now(self) -> float:
        async with self._statement() as cursor:
            await cursor.execute(SQL["now"])
            row = await cursor.fetchone()
        assert row is not None
        return float(row["now"])

    async def list(self) -> Sequence[Member]:
        async with self._statement() as cursor:
            await cursor.execute(SQL["list"])
            return [member_of(row) for row in await cursor.fetchall()]

    async def mark(self, host: str, state: HostState, within: float = DRAIN_SECONDS) -> bool:
        async with self._transaction() as cursor:
            await cursor.execute(SQL["mark"], {"id": host, "state": state, "within": timedelta(seconds=within)})
            return cursor.rowcount == 1

    async def count_sessions(self) -> Mapping[str, SessionCounts]:
        async with self._transaction() as cursor:
            await cursor.execute(SQL["count_sessions"])
            return counts_of([row async for row in cursor])

    def _said(self, description: Description) -> dict[str, object]:
        capacity = self._report(description.capacity)
        return {"address": description.address, "version": description.version, "capacity": capacity}

    def _report(self, capacity: Mapping[str, object]) -> Jsonb:
        """With `schema`, which migrations read."""
        return Jsonb(dict(capacity) if self._schema is None else {**capacity, "schema": self._schema})

    async def _require_schema(self, cursor: AsyncCursor[DictRow]) -> None:
        if self._schema is None:
            return
        await cursor.execute(SQL["needs"])
        row = await cursor.fetchone()
        if row is not None and row["needs"] > self._schema:
            raise OutOfDate

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncCursor[DictRow]]:
        """Commits the block, or nothing. Raises Unavailable."""
        async with self._statement() as cursor, cursor.connection.transaction():
            yield cursor

    @asynccontextmanager
    async def _statement(self) -> AsyncIterator[AsyncCursor[DictRow]]:
        """The same for a single statement, which is a transaction by itself."""
        try:
            async with self._pool.connection() as connection, connection.cursor(row_factory=dict_row) as cursor:
                yield cursor
        except AWAY as failed:
            raise Unavailable("The database cannot be asked now.", 1) from failed


async def _lock(cursor: AsyncCursor[DictRow], host: str) -> dict[str, DictRow]:
    """The host's row, if there is one. It stays as it is until the transaction ends."""
    await cursor.execute(SQL["lock"], {"id": host, "lease": LEASE, "idle": IDLE})
    return {row["id"]: row async for row in cursor}


async def _stand(cursor: AsyncCursor[DictRow], host: str) -> dict[str, DictRow]:
    """The same for the host that asks: its incarnation stays. Waits for none of its other transactions."""
    await cursor.execute(SQL["stand"], {"id": host, "idle": IDLE})
    return {row["id"]: row async for row in cursor}


def _require(rows: Mapping[str, DictRow], me: Membership) -> None:
    row = rows.get(me.host)
    if row is None or row["incarnation"] != me.incarnation or not row["is_leased"]:
        raise Fenced


def member_of(row: DictRow) -> Member:
    return Member(
        row["id"],
        row["incarnation"],
        row["renewals"],
        row["lease_left"],
        row["taken_over"],
        HostState(row["state"]),
        Description(row["address"], row["version"], row["capacity"]),
        row["joined_at"],
        row["has_left"],
        row["drain_left"],
    )


def counts_of(rows: Iterable[DictRow]) -> Mapping[str, SessionCounts]:
    """Of rows of `count_sessions`."""
    counts: dict[str, SessionCounts] = {}
    for row in rows:
        before, number = counts.get(row["host"], SessionCounts()), row["sessions"]
        match State(row["state"]):
            case State.ACTIVE:
                after = replace(before, active=before.active + number)
            case State.IDLE:
                after = replace(before, idle=before.idle + number)
            case _:
                unsaved = 0 if row["archived"] else number
                after = replace(before, asleep=before.asleep + number, unsaved=before.unsaved + unsaved)
        counts[row["host"]] = after
    return counts
