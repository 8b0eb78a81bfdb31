"""A PostgreSQL for all tests of a process, with empty tables and a clock of its own for each test."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, LiteralString

import psycopg
import pytest
import uvloop
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from buntime.fleet.postgres.statements import HOSTS_TABLE
from tests.fleet.postgresql import postgresql

Pool = AsyncConnectionPool[AsyncConnection[Any]]

# The columns that the fleet's statements need. The store's migrations make the whole table.
SESSIONS: LiteralString = """
CREATE TABLE sessions (
  id text PRIMARY KEY, host text, epoch bigint NOT NULL, version bigint NOT NULL,
  state text NOT NULL, archived boolean NOT NULL
);
"""
# Found before PostgreSQL's own function of that name: see CLOCKED.
CLOCK: LiteralString = """
CREATE SCHEMA set_by_tests;
CREATE TABLE set_by_tests.clock (at timestamptz NOT NULL);
INSERT INTO set_by_tests.clock VALUES ('2026-01-01 00:00:00Z');
CREATE FUNCTION set_by_tests.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
  AS 'SELECT at FROM set_by_tests.clock';
"""
CLOCKED = "-c search_path=set_by_tests,public,pg_catalog"


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The server's."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def database() -> Iterator[str]:
    with postgresql() as conninfo:
        yield conninfo


@pytest.fixture
def tables(database: str) -> str:
    """How to connect to a database that is as empty as at first."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS set_by_tests CASCADE; DROP TABLE IF EXISTS hosts, sessions")
        connection.execute(HOSTS_TABLE.read_bytes())
        connection.execute(SESSIONS)
    return database


@pytest.fixture
async def clocked(tables: str) -> AsyncIterator[Pool]:
    """Connections whose clock stands still until the test moves it."""
    with psycopg.connect(tables, autocommit=True) as connection:
        connection.execute(CLOCK)
    async with AsyncConnectionPool(f"{tables} options='{CLOCKED}'", min_size=1, max_size=6, open=False) as pool:
        yield pool
