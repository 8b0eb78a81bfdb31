"""A PostgreSQL of the benchmark's own, with so many hosts and sleeping sessions in its store."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from psycopg import Connection, connect
from psycopg.types.json import Jsonb

from buntime.account import Account
from buntime.daemon.moments import moments_of
from buntime.fleet.members import Membership
from buntime.session import SavedVolume, State
from buntime.stores.postgres.connecting import place_of
from buntime.stores.postgres.store import PostgresStore
from buntime.stores.rows.sessions import session_row
from buntime.stores.rows.usage import open_row
from buntime.usage import Reading, first_window
from tests.contracts import examples
from tests.contracts.postgres import Server, postgres
from tests.ports import free_port

DATABASE = "bench"
SESSIONS_OF_AN_ACCOUNT = 500
LEAST_ACCOUNTS = 20
DAY = 86_400
CONNECTIONS = 23  # of a host, at most
# Every other table stays as it would be: counts by account and by state are made of the rows.
FILL = """
INSERT INTO sessions SELECT made.*
FROM generate_series(1, %(rows)s) AS number, LATERAL jsonb_populate_record(NULL::sessions, %(session)s ||
  jsonb_build_object('id', 'ses_' || lpad(number::text, 18, '0'), 'account', 'acc_' || number %% %(accounts)s,
    'sandbox', 'sbx_' || number, 'volume', 'vol_' || number, 'created_at', %(now)s - number,
    'host', 'hst_' || lpad((number %% %(hosts)s)::text, 18, '0'), 'changed', '3')) AS made;
"""
OPEN = """
INSERT INTO usage_open SELECT made.*
FROM sessions, LATERAL jsonb_populate_record(NULL::usage_open, %(window)s ||
  jsonb_build_object('session', sessions.id, 'account', sessions.account)) AS made
"""
COUNTS = """
INSERT INTO session_counts SELECT account, count(*) FROM sessions GROUP BY account
"""
STATES = """
UPDATE state_counts SET "deep-sleep" = (SELECT count(*) FROM sessions WHERE (hashtext(id) & 63) = shard)
"""
# What creates of a turn have left.
AWAKE = (
    "usage_open WHERE session IN (SELECT id FROM sessions WHERE state <> 'deep-sleep')",
    "sessions WHERE state <> 'deep-sleep'",
    "events",
    "unnumbered_events",
    "changes",
)


@contextmanager
def full_store(directory: Path, hosts: int, rows: int) -> Iterator[Server]:
    """Yields a server whose database DATABASE has these rows. Its files are below `directory`. Blocking."""
    settings = (f"max_connections={hosts * CONNECTIONS + 50}", "shared_buffers=256MB")
    with postgres(free_port(), settings, directory) as server:
        url = server.create(DATABASE)
        asyncio.run(_make_tables(url, _accounts(rows)))
        with connect(url, autocommit=True) as connection:
            _fill(connection, hosts, rows)
            connection.execute("VACUUM ANALYZE")
        yield server


def session_id(number: int) -> str:
    """`number`: from 1."""
    return f"ses_{number:018}"


def forget_creates(server: Server) -> None:
    """Leaves the sessions that the store had at first. No host may run. Blocking."""
    with connect(server.url(DATABASE), autocommit=True) as connection:
        for each in AWAKE:
            connection.execute(f"DELETE FROM {each}".encode())
        connection.execute("VACUUM ANALYZE")


def _accounts(rows: int) -> int:
    return max(LEAST_ACCOUNTS, rows // SESSIONS_OF_AN_ACCOUNT)


async def _make_tables(url: str, accounts: int) -> None:
    """With the accounts, whose plan has room for everything."""

    def none() -> Membership:
        raise AssertionError

    await (await PostgresStore.open(place_of(url), "hst_bench", none)).close()
    with connect(url, autocommit=True) as connection:
        for number in range(accounts):
            made = Account(f"acc_{number}", "enterprise", int(time.time()))
            connection.execute(
                "INSERT INTO accounts VALUES (%s, %s, %s, %s, '{}')", [made.id, made.plan, made.created_at, made.status]
            )


def _fill(connection: Connection, hosts: int, rows: int) -> None:
    now = int(time.time())
    asleep = replace(
        examples.session(state=State.DEEP_SLEEP, created_at=now, expires_at=now + 30 * DAY),
        archived=True,
        key="k" * 80,
        saved=SavedVolume("ses_one/0000000001-abcdefabcdef", 1 << 20, now),
    )
    window = open_row(first_window(asleep, Reading(moments_of(time.time)())))
    shared = {"rows": rows, "hosts": hosts, "accounts": _accounts(rows), "now": now}
    with connection.transaction():
        connection.execute("SET LOCAL session_replication_role = replica")  # no trigger
        connection.execute(FILL, {**shared, "session": Jsonb(dict(session_row(asleep)))})
        connection.execute(OPEN, {"window": Jsonb(dict(window))})
        connection.execute(COUNTS)
        connection.execute(STATES)
