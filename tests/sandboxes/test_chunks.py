"""Half-empty data chunks of the volumes' file system do not keep metadata from growing."""

import os
from contextlib import suppress
from pathlib import Path

import pytest

from buntime.plan import MB
from buntime.sandboxes.kernel.chunks import LEAST, disk_size, make_room, unallocated
from buntime.sandboxes.kernel.volume import Volumes
from tests.sandboxes.test_volume import mounted

pytestmark = pytest.mark.sandbox

SIZE_GB = 4
PIECE = 20 * MB
NAMES = 900  # small files per directory
ENOUGH = 300 * MB  # of metadata; far more than the initial chunks hold


def filled_and_half_emptied(volumes: Volumes) -> Path:
    """Fills the disk from a volume, and deletes every other file. Returns the volume's directory."""
    volumes.create("sbaaaaaaaaaaaa", SIZE_GB * 1024)
    upper = volumes.path("sbaaaaaaaaaaaa") / "upper"
    files: list[Path] = []
    while volumes.free() > 2 * PIECE and len(files) < SIZE_GB * 1024 * MB // PIECE:
        files.append(upper / str(len(files)))
        with files[-1].open("wb") as file, suppress(OSError):  # full
            os.posix_fallocate(file.fileno(), 0, PIECE)
    for path in files[::2]:
        path.unlink()
    volumes.sync()
    return upper


def small_files(directory: Path, size: int) -> None:
    """Writes about `size` bytes of files that are small enough to be stored in metadata. Raises OSError."""
    for number in range(size // 2000):
        if number % NAMES == 0:
            (directory / f"d{number}").mkdir()
        (directory / f"d{number - number % NAMES}" / f"{number}").write_bytes(b"x" * 1800)


def test_metadata_finds_room_where_data_was_deleted() -> None:
    with mounted(SIZE_GB) as volumes:
        upper, size = filled_and_half_emptied(volumes), disk_size(volumes)
        assert unallocated(volumes) < size * LEAST, "data chunks must use up the disk first"
        assert make_room(volumes) >= size * LEAST
        small_files(upper, ENOUGH)
        volumes.sync()


def test_a_disk_with_room_is_left_alone() -> None:
    with mounted(SIZE_GB) as volumes:
        before = unallocated(volumes)
        assert make_room(volumes) == before
