"""Promises of only the directory archive: durable, private, no leftovers, and correct on a full or missing disk."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from buntime.archives.directory import DirectoryArchive
from buntime.ports import ArchiveUnavailable, ObjectExists, ObjectMissing

NAME = "sessions/one/first"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "archive"


def everything(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def test_only_the_owner_can_read_what_the_archive_makes(root: Path) -> None:
    mask = os.umask(0)
    try:
        DirectoryArchive(root / "deep").put(NAME, iter([b"content"]))
    finally:
        os.umask(mask)
    modes = {path.is_dir(): path.stat().st_mode & 0o777 for path in (root, *root.rglob("*"))}
    assert modes == {True: 0o700, False: 0o600}


def test_an_object_is_there_for_the_next_server(root: Path) -> None:
    DirectoryArchive(root).put(NAME, iter([b"con", b"tent"]))
    assert b"".join(DirectoryArchive(root).get(NAME)) == b"content"


def test_a_failed_put_leaves_nothing(root: Path) -> None:
    def content() -> Iterator[bytes]:
        yield b"some"
        raise InterruptedError

    archive = DirectoryArchive(root)
    before = everything(root)
    with pytest.raises(InterruptedError):
        archive.put(NAME, content())
    assert everything(root) == before


def test_a_put_leaves_nothing_in_an_archive_that_moves_away_meanwhile(root: Path) -> None:
    away = root.with_name("away")

    def content() -> Iterator[bytes]:
        yield b"content"
        root.rename(away)
        root.write_text("a file where the archive was")

    archive = DirectoryArchive(root)
    with pytest.raises(ArchiveUnavailable):
        archive.put(NAME, content())
    assert everything(away) == {".incoming"}


def test_the_file_is_on_disk_before_its_name_and_the_name_before_the_answer(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = DirectoryArchive(root)
    synced: list[tuple[Path, bool]] = []  # path, and whether the object had its final name
    fsync = os.fsync

    def watched(number: int) -> None:
        fsync(number)
        synced.append((Path(f"/proc/self/fd/{number}").readlink(), (root / NAME).exists()))

    monkeypatch.setattr(os, "fsync", watched)
    archive.put(NAME, iter([b"content"]))
    assert synced[0][0].parent == root / ".incoming"
    assert not synced[0][1]
    assert {path for path, named in synced if named} == {root, root / "sessions", root / "sessions/one"}


def test_a_file_system_without_hard_links_keeps_what_it_has(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "this file system has none")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    archive = DirectoryArchive(root)
    for _ in range(2):
        archive.put(NAME, iter([b"content"]))
    with pytest.raises(ObjectExists):
        archive.put(NAME, iter([b"other"]))
    assert b"".join(archive.get(NAME)) == b"content"
    assert not list((root / ".incoming").iterdir())


PUT_AND_WAIT = """
import sys
from pathlib import Path
from buntime.archives.directory import DirectoryArchive

def content():
    yield bytes(100_000)
    print("under way", flush=True)
    sys.stdin.read()

DirectoryArchive(Path(sys.argv[1])).put(sys.argv[2], content())
"""


@pytest.fixture
def start_putting(root: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts a process that is in the middle of a put until its stdin closes."""
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        writer = subprocess.Popen(
            [sys.executable, "-c", PUT_AND_WAIT, root, NAME], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        started.append(writer)
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"under way\n"
        return writer

    yield start
    for writer in started:
        writer.kill()
        writer.communicate()


def test_files_of_a_killed_writer_are_removed_at_the_next_start(
    root: Path, start_putting: Callable[[], subprocess.Popen[bytes]]
) -> None:
    writer = start_putting()
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert len(everything(root)) == 2  # .incoming and a file in it
    archive = DirectoryArchive(root)
    assert everything(root) == {".incoming"}
    with pytest.raises(ObjectMissing):
        list(archive.get(NAME))


def test_files_of_a_running_writer_stay(root: Path, start_putting: Callable[[], subprocess.Popen[bytes]]) -> None:
    writer = start_putting()
    archive = DirectoryArchive(root)
    assert not archive.names("sessions/")
    writer.communicate()
    assert writer.returncode == 0
    assert b"".join(archive.get(NAME)) == bytes(100_000)


def test_deleting_removes_directories_that_are_empty_then_and_no_others(root: Path) -> None:
    archive = DirectoryArchive(root)
    archive.put(NAME, iter([b"1"]))
    archive.put("sessions/two/first", iter([b"2"]))
    archive.delete(NAME)
    assert everything(root) == {".incoming", "sessions", "sessions/two", "sessions/two/first"}
    archive.delete("sessions/two/first")
    assert everything(root) == {".incoming"}


def test_a_put_is_refused_when_less_than_the_reserve_is_free(root: Path) -> None:
    free = shutil.disk_usage(root.parent).free
    DirectoryArchive(root, reserve=free // 2).put(NAME, iter([b"content"]))
    with pytest.raises(ArchiveUnavailable, match="free"):
        DirectoryArchive(root, reserve=free * 2).put("sessions/one/second", iter([b"content"]))
    assert DirectoryArchive(root).names("sessions/") == [NAME]


PUT_BEYOND_A_LIMIT = """
import resource, sys
from pathlib import Path
from buntime.archives.directory import DirectoryArchive
from buntime.ports import ArchiveUnavailable

archive = DirectoryArchive(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
archive.put("sessions/one/first", iter([bytes(100_000), bytes(50_000)]))
try:
    archive.put("sessions/one/second", iter([bytes(100_000), bytes(50_001)]))
except ArchiveUnavailable:
    print("refused")
"""


def test_a_disk_that_takes_only_part_of_a_piece_is_a_failure(root: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PUT_BEYOND_A_LIMIT, root], capture_output=True, check=True)
    assert done.stdout == b"refused\n"
    assert everything(root) == {".incoming", "sessions", "sessions/one", NAME}


@pytest.mark.parametrize(
    "use",
    [
        lambda archive: archive.put("sessions/one/second", iter([b"content"])),
        lambda archive: list(archive.get(NAME)),
        lambda archive: archive.delete(NAME),
        lambda archive: archive.names("sessions/"),
    ],
)
def test_a_directory_whose_disk_is_not_mounted_is_unavailable_and_misses_nothing(
    root: Path, use: Callable[[DirectoryArchive], object]
) -> None:
    archive = DirectoryArchive(root)
    archive.put(NAME, iter([b"content"]))
    root.rename(root.with_name("unmounted"))
    root.mkdir()
    with pytest.raises(ArchiveUnavailable):
        use(archive)
    assert not everything(root)


def test_an_object_that_cannot_be_read_is_unavailable(root: Path) -> None:
    archive = DirectoryArchive(root)
    archive.put(NAME, iter([b"content"]))
    (root / NAME).unlink()
    (root / NAME).symlink_to(root / NAME)
    with pytest.raises(ArchiveUnavailable):
        list(archive.get(NAME))
