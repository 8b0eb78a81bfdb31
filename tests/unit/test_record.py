"""The record of a sandbox: what the next start of the server reads of it."""

import json
import stat
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from buntime.sandboxes import record as records
from buntime.sandboxes.record import Record

PARKED = Record("sbabc123def456", 7, "img", "secret", None, records.GENERATION, "volabc123def456")
CLAIMED = replace(PARKED, session="ses_abc123def456ghi789")


@pytest.mark.parametrize("second", [PARKED, CLAIMED, replace(CLAIMED, image="i" * 700), replace(CLAIMED, slot=0)])
@pytest.mark.parametrize("first", [PARKED, CLAIMED, replace(CLAIMED, image="i" * 1500), replace(PARKED, secret="")])
def test_the_last_record_that_was_written_is_read(tmp_path: Path, first: Record, second: Record) -> None:
    records.write(tmp_path, first)
    assert records.read(tmp_path) == first
    records.write(tmp_path, second)
    assert records.read(tmp_path) == second


def test_a_record_of_an_earlier_version_is_written_over(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    file.write_text(json.dumps(asdict(CLAIMED)))
    assert records.read(tmp_path) == CLAIMED
    records.write(tmp_path, PARKED)
    assert records.read(tmp_path) == PARKED


def test_a_claim_writes_over_the_record_of_the_parked_sandbox(tmp_path: Path) -> None:
    """A file that takes its place by a rename would be flushed to the disk at once."""
    records.write(tmp_path, PARKED)
    before = (tmp_path / "record.json").stat()
    records.write(tmp_path, CLAIMED)
    after = (tmp_path / "record.json").stat()
    assert (after.st_ino, after.st_size) == (before.st_ino, before.st_size)
    assert stat.S_IMODE(after.st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]


def test_a_record_that_is_larger_than_what_the_kernel_takes_at_once_replaces_the_file(tmp_path: Path) -> None:
    large = replace(CLAIMED, image="i" * records.MOST)
    for record in (PARKED, large, CLAIMED):
        records.write(tmp_path, record)
        assert records.read(tmp_path) == record


@pytest.mark.parametrize("content", ["", "{", '{"sandbox": "sb"}', "[]", json.dumps(asdict(PARKED))[:50] + " " * 400])
def test_a_record_that_was_cut_short_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "record.json").write_text(content)
    assert records.read(tmp_path) is None
    records.write(tmp_path, PARKED)
    assert records.read(tmp_path) == PARKED
