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

    async def joins(self, archive: Archive, host: Path, shown: str = "/mnt/archive") -> None:
        await require_shared(archive, self.agreed.get(AGREED), self.agree, shown, host)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    return tmp_path / "archive-mark"


async def test_hosts_with_one_archive_join(tmp_path: Path) -> None:
    database, archive = Database(), FakeArchive()
    for number in range(3):
        await database.joins(archive, tmp_path / str(number))
    assert list(archive.objects) == [FOLDER + database.agreed[AGREED]]


async def test_hosts_with_one_archive_join_at_the_same_moment(tmp_path: Path) -> None:
    database, archive = Database(), FakeArchive()
    await asyncio.gather(*(database.joins(archive, tmp_path / str(number)) for number in range(5)))
    assert list(archive.objects) == [FOLDER + database.agreed[AGREED]]


async def test_a_host_with_another_archive_is_refused(host: Path) -> None:
    database, other = Database(), FakeArchive()
    await database.joins(FakeArchive(), host)
    other.objects[f"{FOLDER}0123456789abcdef"] = b"of another fleet"
    with pytest.raises(BadSetting, match="/mnt/archive is not the archive of the other hosts"):
        await database.joins(other, host)


async def test_of_hosts_with_several_archives_that_join_at_once_one_is_a_member(tmp_path: Path) -> None:
    database = Database()
    joins = (database.joins(FakeArchive(), tmp_path / str(number)) for number in range(4))
    joined = await asyncio.gather(*joins, return_exceptions=True)
    assert sorted(type(each).__name__ for each in joined) == ["BadSetting"] * 3 + ["NoneType"]


async def test_a_directory_that_is_not_mounted_is_refused(tmp_path: Path, host: Path) -> None:
    database = Database()
    await database.joins(open_archive(str(tmp_path / "mounted"), tmp_path, {}), host)
    with pytest.raises(BadSetting, match="must be mounted"):
        await database.joins(open_archive(str(tmp_path / "empty"), tmp_path, {}), host)


async def test_a_copy_of_the_archive_is_the_same(host: Path) -> None:
    database, archive, copied = Database(), FakeArchive(), FakeArchive()
    await database.joins(archive, host)
    copied.objects = dict(archive.objects)
    await database.joins(copied, host, "s3://copy")


async def test_nothing_is_agreed_on_while_the_archive_is_away(host: Path) -> None:
    database, archive = Database(), FakeArchive()
    archive.unreachable = True
    with pytest.raises(BadSetting, match="cannot be read"):
        await database.joins(archive, host)
    assert not database.agreed


async def test_a_host_that_has_seen_the_mark_starts_while_the_archive_is_away(host: Path) -> None:
    database, archive = Database(), FakeArchive()
    await database.joins(archive, host)
    archive.unreachable = True
    await database.joins(archive, host)
    with pytest.raises(BadSetting, match="cannot be read"):
        await database.joins(archive, host, "s3://another")
    with pytest.raises(BadSetting, match="cannot be read"):
        await database.joins(archive, host.with_name("new"))
