"""A data directory stays with its database."""

from pathlib import Path

import pytest

from buntime.config import Config
from buntime.stores.belonging import had_alone, require_same
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


def test_a_directory_has_what_a_server_had_alone_until_it_is_a_host(tmp_path: Path, postgres_url: str) -> None:
    config = Config(data_dir=tmp_path, store=postgres_url)
    assert not had_alone(config), "it is new"
    config.host_id_file.write_text("hst_one")
    require_same(config)
    assert not had_alone(config), "it was a host from the first start on"
    config.host_id_file.unlink()
    assert had_alone(config)


def test_a_directory_has_what_was_moved_from_its_file(tmp_path: Path) -> None:
    config = Config(data_dir=tmp_path, store="postgresql://nowhere")
    (tmp_path / "buntime.db.moved").touch()
    config.host_id_file.write_text("hst_one")
    assert had_alone(config)


async def test_a_directory_with_a_file_has_no_database(tmp_path: Path) -> None:
    config = Config(data_dir=tmp_path)
    async with opened_file(config):
        require_same(config)
    assert not (tmp_path / "store-id").exists()
