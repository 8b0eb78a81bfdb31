"""All hosts of a fleet have one archive."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from buntime.archives.belonging import AGREED, FOLDER, require_shared
from buntime.archives.opening import open_archive
from buntime.config import BadSetting
from buntime.ports import Archive
from buntime.testing.archive import FakeArchive


@dataclass
class Database:
    """What the hosts agree on."""

    agreed: dict[str, str] = field(default_factory=dict)

    async def agree(self, name: str, value: str) -> str:
        await asyncio.sleep(0)
        return self.agreed.setdefault(name, value)

    async def joins(self, archive: Archive, known: str | None = "") -> None:
        await require_shared(archive, self.agreed.get(AGREED) if known == "" else known, self.agree, "/mnt/archive")


async def test_hosts_with_one_archive_join() -> None:
    database, archive = Database(), FakeArchive()
    for _ in range(3):
        await database.joins(archive)
    assert list(archive.objects) == [FOLDER + database.agreed[AGREED]]


async def test_hosts_with_one_archive_join_at_the_same_moment() -> None:
    database, archive = Database(), FakeArchive()
    await asyncio.gather(*(database.joins(archive) for _ in range(5)))
    assert list(archive.objects) == [FOLDER + database.agreed[AGREED]]


async def test_a_host_with_another_archive_is_refused() -> None:
    database, other = Database(), FakeArchive()
    await database.joins(FakeArchive())
    other.objects[f"{FOLDER}0123456789abcdef"] = b"of another fleet"
    with pytest.raises(BadSetting, match="/mnt/archive is not the archive of the other hosts"):
        await database.joins(other)


async def test_of_hosts_with_several_archives_that_join_at_once_one_is_a_member() -> None:
    database = Database()
    joined = await asyncio.gather(*(database.joins(FakeArchive(), None) for _ in range(4)), return_exceptions=True)
    assert sorted(str(type(each).__name__) for each in joined) == ["BadSetting"] * 3 + ["NoneType"]


async def test_a_directory_that_is_not_mounted_is_refused(tmp_path: Path) -> None:
    database = Database()
    await database.joins(open_archive(str(tmp_path / "mounted"), tmp_path, {}))
    with pytest.raises(BadSetting, match="must be mounted"):
        await database.joins(open_archive(str(tmp_path / "empty"), tmp_path, {}))


async def test_a_copy_of_the_archive_is_the_same() -> None:
    database, archive, copied = Database(), FakeArchive(), FakeArchive()
    await database.joins(archive)
    copied.objects = dict(archive.objects)
    await database.joins(copied)


async def test_nothing_is_agreed_on_while_the_archive_is_away() -> None:
    database, archive = Database(), FakeArchive()
    archive.unreachable = True
    with pytest.raises(BadSetting, match="cannot be read"):
        await database.joins(archive)
    assert not database.agreed
