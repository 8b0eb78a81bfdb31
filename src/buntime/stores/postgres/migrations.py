"""Makes the tables, and brings those of earlier versions up to date. Several hosts may do so at once.

Two versions of buntime may use one database. So a migration adds and does not take away. `-- needs: N` at its top is
the oldest version of the schema that a server must know to work with the result. A server refuses a database that needs
more than it knows. A migration is refused while a host runs that knows less than it needs.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from buntime.stores.postgres.connecting import require_fit
from buntime.stores.unusable import StoreTooNew, StoreUnusable

_FILES = Path(__file__).with_name("sql")
_NEEDS = re.compile(r"-- needs: (\d+)\n")
_LOCK = 7097014860201003
_FIRST_FLEET = 3  # what the hosts know that do not say what they know
_OUT_OF_DATE = """
SELECT id FROM hosts WHERE NOT taken_over AND lease_until > clock_timestamp()
  AND coalesce((capacity->'schema')::integer, %(silent)s) < %(needs)s ORDER BY id
"""
# A dump that was restored has numbers of another cluster's transactions, which may be above all of this one: then these
# sessions would look changed for ever.
_OF_THIS_CLUSTER = "UPDATE sessions SET changed = pg_current_xact_id() WHERE changed > pg_current_xact_id()"


@dataclass(frozen=True, slots=True)
class Step:
    statements: str
    needs: int


async def migrate(connection: AsyncConnection[DictRow], where: str) -> None:
    """Raises StoreTooNew, and StoreUnusable for a database that cannot be used."""
    require_fit(connection.info, where)
    async with connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")  # whatever the default is
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        made, needs = await _stored(connection)
        version = max(made, default=0)
        if needs > newest():
            raise StoreTooNew(where, version, newest())
        missing = {number: step for number, step in sorted(steps().items()) if number not in made}
        if version >= _FIRST_FLEET:
            await _require_hosts(connection, max((step.needs for step in missing.values()), default=0), where)
        for number, step in missing.items():
            await connection.execute(step.statements.encode())
            await connection.execute(
                "INSERT INTO buntime_schema (version, needs) VALUES (%s, %s)", [number, step.needs]
            )
        await connection.execute(_OF_THIS_CLUSTER)


@cache
def steps() -> Mapping[int, Step]:
    found = {}
    for file in _FILES.glob("[0-9][0-9][0-9]_*.sql"):
        text = file.read_text()
        needs = _NEEDS.match(text)
        assert needs is not None, file
        found[int(file.name[:3])] = Step(text, int(needs[1]))
    return found


def newest() -> int:
    """The newest version of the schema that this program knows."""
    return max(steps())


async def _require_hosts(connection: AsyncConnection[DictRow], needs: int, where: str) -> None:
    """Raises StoreUnusable while a host runs that does not know this version. A host that joins later waits for the end
    of the transaction, and compares by itself."""
    if needs <= _FIRST_FLEET:
        return
    await connection.execute("LOCK TABLE hosts IN SHARE ROW EXCLUSIVE MODE")
    found = await connection.execute(_OUT_OF_DATE, {"silent": _FIRST_FLEET, "needs": needs})
    if hosts := [row["id"] for row in await found.fetchall()]:
        raise StoreUnusable(
            f"Hosts of an older version use the store {where}, and could not after this update: {', '.join(hosts)}. "
            "Stop them first, or update them to a version in between."
        )


async def _stored(connection: AsyncConnection[DictRow]) -> tuple[frozenset[int], int]:
    """The steps that were made, and the oldest version that a server must know. An older number may come later, from
    work that went on side by side."""
    await connection.execute(
        "CREATE TABLE IF NOT EXISTS buntime_schema (version integer PRIMARY KEY, needs integer NOT NULL, "
        "at timestamptz NOT NULL DEFAULT now())"
    )
    found = await connection.execute("SELECT version, needs FROM buntime_schema")
    rows = await found.fetchall()
    return frozenset(row["version"] for row in rows), max((row["needs"] for row in rows), default=0)
