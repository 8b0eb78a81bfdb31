"""An archive is copied whole, also when the copy is killed and begun again."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from buntime.admin.moving import store
from buntime.archives.copying import Differs, copy
from buntime.archives.directory import DirectoryArchive
from buntime.ports import ArchiveUnavailable
from buntime.testing.archive import FakeArchive


def silent(done: int, of: int) -> None:
    assert done < of


def filled() -> FakeArchive:
    archive = FakeArchive()
    for number in range(5):
        archive.objects[f"ses_{number}/1700000000-1-0123456789ab"] = secrets.token_bytes(100_000 * number)
    archive.objects["installations/0123"] = b"buntime\n"
    return archive


def test_all_objects_arrive_under_their_names() -> None:
    source, target = filled(), FakeArchive()
    assert copy(source, target, silent) == 6
    assert target.objects == source.objects
    assert copy(source, target, silent) == 0


def test_a_copy_that_broke_off_goes_on() -> None:
    source, target = filled(), FakeArchive()
    target.capacity = 250_000
    with pytest.raises(ArchiveUnavailable):
        copy(source, target, silent)
    there = len(target.objects)
    target.capacity = None
    assert copy(source, target, silent) == 6 - there
    assert target.objects == source.objects


def test_an_object_that_the_target_changes_is_found_and_removed() -> None:
    source, target = filled(), FakeArchive()
    target.lying = True
    with pytest.raises(Differs):
        copy(source, target, silent)
    assert not target.objects


@pytest.mark.parametrize("back", [b"", b"short", b"much longer than it was"])
def test_an_object_of_another_length_is_another_one(back: bytes) -> None:
    class Other(FakeArchive):
        def get(self, name: str) -> Iterator[bytes]:
            yield back

    source = FakeArchive()
    source.objects["a"] = b"as it was"
    with pytest.raises(Differs):
        copy(source, Other(), silent)


def test_the_command_copies_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("BUNTIME_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("BUNTIME_ARCHIVE", str(tmp_path / "new"))
    DirectoryArchive(tmp_path / "data/archive").put("ses_a/one", iter([b"kept"]))
    done = CliRunner().invoke(store, ["move-archive"])
    assert done.exit_code == 0, done.output
    assert "1 objects were copied" in done.output
    assert b"".join(DirectoryArchive(tmp_path / "new").get("ses_a/one")) == b"kept"
