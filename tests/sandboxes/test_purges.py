"""A data directory can be purged whatever else the host has."""

import json
from pathlib import Path

import pytest

from buntime.admin.purging import purge
from buntime.config import SHARED_RUN_DIR, Config
from buntime.sandboxes.kernel import host
from buntime.sandboxes.kernel.host import BLOCKS

pytestmark = pytest.mark.sandbox


def test_a_directory_without_addresses_is_purged_where_none_are_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims, other, mine = tmp_path / "run", tmp_path / "other", tmp_path / "mine"
    for directory in (claims, other, mine, mine / "archive"):
        directory.mkdir()
    for block in range(BLOCKS):
        (claims / f"part-{block}.json").write_text(json.dumps({"data_dir": str(other)}))
    (mine / "store.db").write_text("a server has begun here, and found no addresses")
    (mine / "archive" / "object").write_text("")
    SHARED_RUN_DIR.mkdir(mode=0o711, exist_ok=True)
    monkeypatch.setattr(host, "SHARED_RUN_DIR", claims)

    purge(Config(data_dir=mine))
    assert list(mine.iterdir()) == []
    assert len(list(claims.glob("part-*.json"))) == BLOCKS, "the claims of others stay"
