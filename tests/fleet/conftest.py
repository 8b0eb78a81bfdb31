"""A database with the store's tables for the tests of a process, emptied and with a clock of its own for each test."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, LiteralString

import psycopg
import pytest
import uvloop
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from tests.contracts.postgres import Server, emptied, postgres
from tests.ports import free_port

Pool = AsyncConnectionPool[AsyncConnection[Any]]

# Found before PostgreSQL's own function of that name: see CLOCKED.
CLOCK: LiteralString = """
CREATE SCHEMA set_by_tests;
CREATE TABLE set_by_tests.clock (at timestamptz NOT NULL);
INSERT INTO set_by_tests.clock VALUES ('2026-01-01 00:00:00Z');
CREATE FUNCTION set_by_tests.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
  AS 'SELECT at FROM set_by_tests.clock';
"""
CLOCKED = "&options=-c%20search_path%3Dset_by_tests,public,pg_catalog"


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The server's."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def database() -> Iterator[Server]:
    with postgres(free_port()) as server:
        server.create("fleet")
        yield server


@pytest.fixture
async def tables(database: Server) -> str:
    """The URL of a database that is as empty as at first."""
    url = database.url("fleet")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA IF EXISTS set_by_tests CASCADE")
    await emptied(url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DELETE FROM hosts")
    return url


@pytest.fixture
async def clocked(tables: str) -> AsyncIterator[Pool]:
    """Connections whose clock stands still until the test moves it."""
    with psycopg.connect(tables, autocommit=True) as connection:
        connection.execute(CLOCK)
    async with AsyncConnectionPool(f"{tables}{CLOCKED}", min_size=1, max_size=6, open=False) as pool:
        yield pool
