"""A data directory stays with its database."""

from pathlib import Path

import pytest

from buntime.config import Config
from buntime.stores.belonging import require_same
from buntime.stores.opening import opened_file
from buntime.stores.unusable import StoreUnusable
from tests.contracts.postgres import Server, emptied

pytestmark = pytest.mark.postgres


async def test_another_database_is_refused_also_when_it_is_empty(
    postgres_server: Server, postgres_url: str, tmp_path: Path
) -> None:
    first, other = postgres_url, postgres_server.create("other_store")
    for url in (first, other):
        await emptied(url)
    for url in (first, first):
        require_same(Config(data_dir=tmp_path, store=url))
    with pytest.raises(StoreUnusable, match="correct BUNTIME_STORE"):
        require_same(Config(data_dir=tmp_path, store=other))
    require_same(Config(data_dir=tmp_path, store=first))


async def test_a_directory_with_a_file_has_no_database(tmp_path: Path) -> None:
    config = Config(data_dir=tmp_path)
    async with opened_file(config):
        require_same(config)
    assert not (tmp_path / "store-id").exists()
