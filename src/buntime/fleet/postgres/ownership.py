"""Who has a session, in PostgreSQL. Each function runs within the caller's transaction.

What one host may do depends on its own row and on that of the host before it. So both stay locked until the
transaction ends: a host that is taken over, or joins again, waits for it, and then sees what it did. The database ends
a transaction whose client is silent for IDLE.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.rows import dict_row

from buntime.fleet.members import Fenced, Membership
from buntime.fleet.ownership import Ownership
from buntime.fleet.postgres.statements import IDLE, statements_of
from buntime.session import State

SQL = statements_of("ownership.sql")
# The end of each statement that changes a session. No row changed means: this host does not own the session any more.
OWNED: Final = "host = %(host)s AND epoch = %(epoch)s"


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where a request for a session goes: see `ownership.handling_of`."""

    host: str | None
    epoch: int
    address: str | None  # of the host; None where no host is known
    state: State
    archived: bool
    taken_over: bool


async def require_member(connection: AsyncConnection[Any], me: Membership) -> None:
    """Begins a transaction that adds a row without an epoch of its own, such as a session. Raises Fenced."""
    async with connection.cursor() as cursor:
        await cursor.execute(SQL["require"], {"host": me.host, "incarnation": me.incarnation, "idle": IDLE})
        if await cursor.fetchone() is None:
            raise Fenced


async def claim(connection: AsyncConnection[Any], me: Membership, session: str) -> int | None:
    """Makes this host the owner of a session whose files are in the archive. Returns its new epoch, or None where
    another host owns it or it cannot be woken elsewhere. Raises Fenced."""
    await require_member(connection, me)
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(SQL["claim"], {"host": me.host, "session": session})
        row = await cursor.fetchone()
    return None if row is None else int(row["epoch"])


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
        return [Ownership(row["id"], row["host"], row["epoch"], State(row["state"])) async for row in cursor]
