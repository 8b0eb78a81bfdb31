"""Opens an empty store of each implementation for the contract tests, and closes it afterwards."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from buntime.ports import Store
from buntime.stores.sqlite.store import SqliteStore
from buntime.testing.store import FakeStore
from tests.contracts import twins
from tests.contracts.postgres import LOCAL, Server, emptied, opened_as, postgres
from tests.ports import free_port

POSTGRES = pytest.param("postgres", marks=pytest.mark.postgres)


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    return tmp_path / "buntime.db"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    with postgres(free_port()) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres_server: Server) -> str:
    """A database that tests share, one after another."""
    twins.postgres_url = postgres_server.create("contracts")
    return twins.postgres_url


@pytest.fixture(params=["fake", "sqlite", POSTGRES])
async def store(request: pytest.FixtureRequest, store_path: Path) -> AsyncIterator[Store]:
    store: Store = FakeStore()
    if request.param == "sqlite":
        store = await SqliteStore.open(store_path)
    elif request.param == "postgres":
        url: str = request.getfixturevalue("postgres_url")
        await emptied(url)
        store = await opened_as(LOCAL, url)
    yield store
    await store.close()
