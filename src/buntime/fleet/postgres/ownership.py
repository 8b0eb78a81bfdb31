"""Who has a session, in PostgreSQL. Each function runs within the caller's transaction.

What one host may do depends on its own row and on that of the host before it. So both stay locked until the
transaction ends: a host that is taken over, or joins again, waits for it, and then sees what it did. The database ends
a transaction whose client is silent for IDLE.
"""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row

from buntime.fleet.members import Fenced, Membership
from buntime.fleet.ownership import Left, Ownership, Whereabouts
from buntime.fleet.postgres.statements import IDLE, statements_of
from buntime.session import State

SQL = statements_of(Path(__file__).with_name("ownership.sql"))


async def require_member(connection: AsyncConnection[Any], me: Membership) -> None:
    """Begins a transaction that adds a row without an epoch of its own, such as a session. Raises Fenced."""
    async with connection.cursor() as cursor:
        await cursor.execute(SQL["require"], {"host": me.host, "incarnation": me.incarnation, "idle": IDLE})
        if await cursor.fetchone() is None:
            raise Fenced


async def claim(connection: AsyncConnection[Any], me: Membership, session: str, volume: str) -> DictRow | None:
    """Makes this host the owner of a session whose files are in the archive. Returns its row, or None where another
    host owns it or it cannot be woken elsewhere. Raises Fenced.

    `volume`: a new id, so that what an earlier owner has of the session is never taken for what this one has.
    """
    return await _own(connection, SQL["claim"], me, session, volume)


async def take(connection: AsyncConnection[Any], me: Membership, session: str, volume: str) -> DictRow | None:
    """The same for a session in any state whose host is lost, and its newest files with it. Raises Fenced."""
    return await _own(connection, SQL["take"], me, session, volume)


async def _own(
    connection: AsyncConnection[Any], statement: bytes, me: Membership, session: str, volume: str
) -> DictRow | None:
    await require_member(connection, me)
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(statement, {"host": me.host, "session": session, "volume": volume})
        return await cursor.fetchone()


async def look(connection: AsyncConnection[Any], session: str) -> Whereabouts | None:
    """Returns None where there is no such session."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(SQL["look"], {"session": session})
        row = await cursor.fetchone()
    return None if row is None else Whereabouts(**row | {"state": State(row["state"])})


async def report(connection: AsyncConnection[Any], me: Membership, held: Collection[str]) -> Sequence[Ownership]:
    """The rows of all sessions that this host holds, and of those that should be awake on it: see `compare`. Raises
    Fenced.

    `held`: every session of which the host has anything. It reports when it joins, and every 30 s.
    """
    await require_member(connection, me)
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(SQL["report"], {"host": me.host, "held": list(held)})
        rows = await cursor.fetchall()
    return [Ownership(row["id"], row["host"], row["epoch"], State(row["state"]), row["volume"]) for row in rows]


async def look_at_duty(connection: AsyncConnection[Any], me: Membership) -> bool | None:
    """Whether this host does what one host does for all. None: nobody does, so `take_duty`."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(SQL["look_at_duty"], {"host": me.host, "incarnation": me.incarnation})
        row = await cursor.fetchone()
    assert row is not None  # the first migration of fleets has made it
    return bool(row["mine"]) if row["held"] else None


async def take_duty(connection: AsyncConnection[Any], me: Membership) -> bool:
    """Takes the duty unless a host has it. Returns whether this one has it. Raises Fenced."""
    await require_member(connection, me)
    async with connection.cursor() as cursor:
        await cursor.execute(SQL["take_duty"], {"host": me.host, "incarnation": me.incarnation})
    return bool(await look_at_duty(connection, me))


async def adopt(connection: AsyncConnection[Any], me: Membership) -> int:
    """Makes this host the owner of what a server had that used the database alone. Returns how many sessions. Raises
    Fenced."""
    await require_member(connection, me)
    async with connection.cursor() as cursor:
        await cursor.execute(SQL["adopt"], {"host": me.host})
        return len(await cursor.fetchall())


async def strays(connection: AsyncConnection[Any], now: int, most: int) -> Sequence[str]:
    """Sessions of nobody, or of a lost host, that have expired, are being deleted, or whose account is."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(SQL["strays"], {"now": now, "most": most})
        return [row["id"] for row in await cursor.fetchall()]


async def left_behind(connection: AsyncConnection[Any], host: str) -> Sequence[Left]:
    """What the host may still have of sessions that moved, in the order in which they did."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(SQL["left_behind"], {"host": host})
        return [Left(**row) for row in await cursor.fetchall()]


async def forget_left(connection: AsyncConnection[Any], host: str, volume: str) -> bool:
    """False where it was forgotten before."""
    async with connection.cursor() as cursor:
        await cursor.execute(SQL["forget_left"], {"host": host, "volume": volume})
        return bool(await cursor.fetchall())
