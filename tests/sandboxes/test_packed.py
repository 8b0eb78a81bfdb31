"""What is packed has the same files, and takes no more of the host's disk than the layer does."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from buntime.plan import MB
from buntime.sandboxes.kernel.packed import LARGEST_FACTOR, LARGEST_REST, Packed, Unpackable

pytestmark = pytest.mark.sandbox

TB = 1 << 40
LAYER = "lay000000000001"


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    upper = tmp_path / "upper"
    upper.mkdir()
    (upper / "small").write_text("small")
    os.link(upper / "small", upper / "again")
    return upper


def sparse(path: Path, size: int, at: int, content: bytes) -> None:
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(at)
        file.write(content)


@contextmanager
def mounted(packed: Packed, place: Path) -> Iterator[Path]:
    place.mkdir()
    subprocess.run(["mount", "-o", "ro", packed.device(LAYER), place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)
        packed.close()


def test_a_sparse_file_takes_no_disk_for_its_holes(tmp_path: Path, upper: Path) -> None:
    sparse(upper / "sparse", TB, TB - 5 * MB, b"here")
    packed = Packed(tmp_path / "packed")
    packed.pack(LAYER, upper, MB)
    file = tmp_path / "packed" / f"{LAYER}.erofs"
    assert file.stat().st_blocks * 512 <= LARGEST_FACTOR * MB + LARGEST_REST
    with mounted(packed, tmp_path / "place") as place:
        with (place / "sparse").open("rb") as found:
            assert found.seek(0, os.SEEK_END) == TB
            found.seek(TB - 5 * MB)
            assert found.read(8) == b"here" + bytes(4)
        assert (place / "small").read_text() == "small"
        assert (place / "small").stat().st_ino == (place / "again").stat().st_ino


def test_what_would_take_more_than_its_layer_is_not_packed_and_leaves_nothing(tmp_path: Path, upper: Path) -> None:
    (upper / "large").write_bytes(os.urandom(LARGEST_REST + MB))
    packed = Packed(tmp_path / "packed")
    with pytest.raises(Unpackable):
        packed.pack(LAYER, upper, 0)
    assert not packed.has(LAYER)
    assert not list((tmp_path / "packed").iterdir())
