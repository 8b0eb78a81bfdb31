"""The digest of a layer depends on what a session sees, and takes no longer than the layer is large."""

import os
import stat
from pathlib import Path

from buntime.plan import MB
from buntime.sandboxes.kernel.digest import BLOCK, digest_of

TB = 1 << 40


def written(directory: Path, size: int, at: int, content: bytes) -> Path:
    """Returns a new directory with a file of this size, which has the content at this offset and holes around it."""
    directory.mkdir()
    with (directory / "file").open("wb") as file:
        file.truncate(size)
        file.seek(at)
        file.write(content)
    os.utime(directory / "file", ns=(0, 0))
    return directory


def test_zeros_and_holes_are_the_same(tmp_path: Path) -> None:
    holes = written(tmp_path / "holes", 20 * BLOCK, 7 * BLOCK + 9, b"here")
    zeros = written(tmp_path / "zeros", 20 * BLOCK, 0, bytes(7 * BLOCK + 9) + b"here" + bytes(BLOCK))
    assert digest_of(holes, MB) == digest_of(zeros, MB)


def test_size_place_and_content_count(tmp_path: Path) -> None:
    same = (20 * BLOCK, BLOCK, b"here")
    others = [(20 * BLOCK + 1, BLOCK, b"here"), (20 * BLOCK, 2 * BLOCK, b"here"), (20 * BLOCK, BLOCK, b"else")]
    trees = [written(tmp_path / f"{number}", *what) for number, what in enumerate([same, *others])]
    assert len({digest_of(tree, MB) for tree in trees}) == len(trees)


def test_a_file_of_a_terabyte_is_not_read_where_it_has_holes(tmp_path: Path) -> None:
    """Otherwise the digest would not end within its processor time."""
    one = written(tmp_path / "one", 8 * TB, 8 * TB - 5, b"here")
    other = written(tmp_path / "other", 8 * TB, 8 * TB - 4, b"here")
    assert digest_of(one, 0) != digest_of(other, 0)


def test_links_of_names_that_are_gone_do_not_count(tmp_path: Path) -> None:
    """overlayfs links them to one node, also from its own directory."""
    trees = [tmp_path / name for name in ("linked", "alone")]
    for tree in trees:
        tree.mkdir()
        os.mknod(tree / "a", stat.S_IFCHR, os.makedev(0, 0))
    os.link(trees[0] / "a", trees[0] / "b")
    os.link(trees[0] / "a", tmp_path / "elsewhere")
    os.mknod(trees[1] / "b", stat.S_IFCHR, os.makedev(0, 0))
    assert digest_of(trees[0], MB) == digest_of(trees[1], MB)
