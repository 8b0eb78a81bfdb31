"""Opens an empty store of each implementation for the contract tests, and closes it afterwards."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from buntime.ports import Store
from buntime.stores.sqlite.store import SqliteStore
from buntime.testing.store import FakeStore


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    return tmp_path / "buntime.db"


@pytest.fixture(params=["fake", "sqlite"])
async def store(request: pytest.FixtureRequest, store_path: Path) -> AsyncIterator[Store]:
    store: Store = FakeStore() if request.param == "fake" else await SqliteStore.open(store_path)
    yield store
    await store.close()
