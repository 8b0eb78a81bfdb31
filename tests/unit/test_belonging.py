"""A server does not start with a store that is not its data directory's."""

from pathlib import Path

import pytest

from buntime.config import Config
from buntime.stores.belonging import require_own
from buntime.stores.unusable import StoreUnusable

DATABASE = "postgresql://db.example.com/buntime"


@pytest.mark.parametrize("left", ["buntime.db.moved", "store-id"])
def test_a_file_is_refused_where_the_store_is_in_a_database(left: str, tmp_path: Path) -> None:
    (tmp_path / left).touch()
    with pytest.raises(StoreUnusable, match="set BUNTIME_STORE"):
        require_own(Config(data_dir=tmp_path))
    require_own(Config(data_dir=tmp_path, store=DATABASE))


def test_a_database_is_refused_where_the_store_was_not_moved_yet(tmp_path: Path) -> None:
    (tmp_path / "buntime.db").touch()
    with pytest.raises(StoreUnusable, match="buntime store move"):
        require_own(Config(data_dir=tmp_path, store=DATABASE))
    require_own(Config(data_dir=tmp_path))


@pytest.mark.parametrize("store", ["", DATABASE])
def test_a_new_directory_takes_either(store: str, tmp_path: Path) -> None:
    require_own(Config(data_dir=tmp_path / "not made yet", store=store))
