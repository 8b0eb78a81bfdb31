"""Layers are packed as file systems and have digests, whatever files a session has made."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from buntime.sandboxes.kernel import digest as digests
from buntime.sandboxes.kernel import packed as packing
from buntime.sandboxes.kernel.digest import Undigestible, digest, digest_of
from buntime.sandboxes.kernel.packed import Packed, Unpackable
from buntime.sandboxes.kernel.volume import Volumes
from tests.sandboxes import hostile
from tests.sandboxes.hostile import Tree
from tests.sandboxes.test_volume import SANDBOX, mounted, moved, upper

pytestmark = pytest.mark.sandbox

LAYER, OTHER = "layaaaaaaaaaaaa", "laybbbbbbbbbbbb"


@pytest.fixture(scope="module")
def opened() -> Iterator[Volumes]:
    with mounted(2) as volumes:
        yield volumes


@pytest.fixture
def volumes(opened: Volumes) -> Iterator[Volumes]:
    """Has a volume of 64 MB."""
    opened.create(SANDBOX, 64)
    try:
        yield opened
    finally:
        for name in opened.all():
            opened.destroy(name)


@pytest.fixture
def packed(tmp_path: Path) -> Iterator[Packed]:
    packed = Packed(tmp_path / "packed")
    yield packed
    packed.close()


@contextmanager
def mount_of(packed: Packed, tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "mount"
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "erofs", "-o", "ro", packed.device(LAYER), place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def layer_of(volumes: Volumes, tree: Tree, name: str = LAYER) -> int:
    """Makes a layer with the tree. Returns the bytes that it takes."""
    tree(upper(volumes))
    return volumes.capture(SANDBOX, name)


NOT_PACKED = (hostile.exabytes_of_holes,)


@pytest.mark.parametrize("tree", [tree for tree in hostile.EXACT if tree not in NOT_PACKED], ids=lambda t: t.__name__)
def test_a_packed_layer_has_the_same_files(volumes: Volumes, packed: Packed, tree: Tree, tmp_path: Path) -> None:
    size = layer_of(volumes, tree)
    packed.pack(LAYER, volumes.upper(LAYER), size)
    with mount_of(packed, tmp_path) as place:
        assert digest(place) == digest(volumes.upper(LAYER))


@pytest.mark.parametrize("tree", [*NOT_PACKED, hostile.paths_that_are_too_long, hostile.ten_thousand_levels])
def test_what_cannot_be_packed_is_refused_and_leaves_nothing(
    volumes: Volumes, packed: Packed, tree: Tree, tmp_path: Path
) -> None:
    size = layer_of(volumes, tree)
    with pytest.raises(Unpackable):
        packed.pack(LAYER, volumes.upper(LAYER), size)
    assert not packed.has(LAYER)
    assert list((tmp_path / "packed").iterdir()) == []


def test_files_that_share_content_or_have_holes_are_packed_without_growing(
    volumes: Volumes, packed: Packed, tmp_path: Path
) -> None:
    def tree(root: Path) -> None:
        original = root / "original"
        original.write_bytes(os.urandom(1 << 20))
        for number in range(200):
            subprocess.run(["cp", "--reflink=always", original, root / f"{number}"], check=True)
        with (root / "hole").open("wb") as file:
            file.truncate(1 << 33)
            file.seek(1 << 32)
            file.write(b"content")

    size = layer_of(volumes, tree)
    packed.pack(LAYER, volumes.upper(LAYER), size)
    assert (tmp_path / "packed" / f"{LAYER}.erofs").stat().st_size < 64 << 20
    with mount_of(packed, tmp_path) as place:
        assert digest(place) == digest(volumes.upper(LAYER))


def test_terabytes_of_holes_are_packed(volumes: Volumes, packed: Packed, tmp_path: Path) -> None:
    """Files that a program makes to be filled later, as databases and virtual machines do."""

    def tree(root: Path) -> None:
        for number in range(4):
            with (root / f"{number}").open("wb") as file:
                file.truncate(1 << 40)
                file.seek(number << 37)
                file.write(b"content")

    size = layer_of(volumes, tree)
    packed.pack(LAYER, volumes.upper(LAYER), size)
    with mount_of(packed, tmp_path) as place:
        assert digest(place) == digest(volumes.upper(LAYER))


def test_a_terabyte_of_one_hole_is_refused_and_does_not_hang(
    volumes: Volumes, packed: Packed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tool waits for itself then, if there are so many files that its queue is full."""
    monkeypatch.setattr(packing, "PATIENCE", 10**6)

    def tree(root: Path) -> None:
        (root / "a hole").touch()
        os.truncate(root / "a hole", 1 << 40)
        for number in range(300):
            (root / f"before {number}").write_text("x")
            (root / f"z{number}").mkdir()

    size = layer_of(volumes, tree)
    with pytest.raises(Unpackable, match="holes"):
        packed.pack(LAYER, volumes.upper(LAYER), size)
    assert list((tmp_path / "packed").iterdir()) == []


def test_devices_are_shared_by_all_servers_of_a_host_and_go_with_their_last_user(
    volumes: Volumes, packed: Packed, tmp_path: Path
) -> None:
    size = layer_of(volumes, hostile.many_links)
    packed.pack(LAYER, volumes.upper(LAYER), size)
    device = packed.device(LAYER)
    next_server = Packed(tmp_path / "packed")
    with mount_of(packed, tmp_path):
        packed.close()
        assert next_server.device(LAYER) == device
        next_server.remove(LAYER)
        assert (tmp_path / "mount/original").read_bytes() == b"x"
    assert not Path("/sys/block", device.name, "loop").exists()


def test_a_start_removes_what_is_unfinished_or_unknown(packed: Packed, tmp_path: Path) -> None:
    names = {f"{LAYER}.erofs", f"{OTHER}.erofs", f"{LAYER}.new"}
    for name in names:
        (tmp_path / "packed" / name).touch()
    packed.keep({LAYER})
    assert [file.name for file in (tmp_path / "packed").iterdir()] == [f"{LAYER}.erofs"]


# --- digests ---


@pytest.mark.parametrize(
    "tree",
    [*hostile.EXACT, hostile.paths_that_are_too_long, hostile.ten_thousand_levels],
    ids=lambda tree: tree.__name__,
)
def test_a_digest_is_of_any_tree_and_the_same_for_a_copy(volumes: Volumes, tree: Tree) -> None:
    size = layer_of(volumes, tree)
    found = digest_of(volumes.upper(LAYER), size)
    assert digest(volumes.upper(LAYER)) == found
    if tree in hostile.EXACT:
        moved(volumes)
        assert digest(upper(volumes)) == found


def _content(root: Path) -> None:
    (root / "file").write_bytes(b"other")


def _mode(root: Path) -> None:
    (root / "file").chmod(0o600)


def _owner(root: Path) -> None:
    os.chown(root / "file", 1, 0)


def _name(root: Path) -> None:
    (root / "file").rename(root / "renamed")


def _place(root: Path) -> None:
    (root / "file").rename(root / "dir/file")


def _kind(root: Path) -> None:
    (root / "fifo").unlink()
    (root / "fifo").touch()


def _link(root: Path) -> None:
    (root / "link").unlink()
    (root / "link").symlink_to("elsewhere")


def _parted(root: Path) -> None:
    (root / "same").unlink()
    (root / "same").write_bytes(b"x")


def _attribute(root: Path) -> None:
    os.setxattr(root / "file", "user.a", b"b")


def _opaque(root: Path) -> None:
    os.setxattr(root / "dir", "trusted.overlay.opaque", b"y")


def _redirect(root: Path) -> None:
    os.setxattr(root / "dir", "trusted.overlay.redirect", b"/old")


def _device(root: Path) -> None:
    (root / "gone").unlink()
    os.mknod(root / "gone", 0o20000, os.makedev(0, 1))


def _longer(root: Path) -> None:
    os.truncate(root / "hole", (1 << 40) + 1)


def _in_a_hole(root: Path) -> None:
    with (root / "hole").open("r+b") as file:
        file.seek(1 << 39)
        file.write(b"x")


CHANGES = (
    *(_content, _mode, _owner, _name, _place, _kind, _link, _parted, _attribute, _opaque, _redirect, _device),
    *(_longer, _in_a_hole),
)


def _tree(root: Path) -> None:
    (root / "dir").mkdir()
    (root / "file").write_bytes(b"x")
    os.link(root / "file", root / "same")
    (root / "link").symlink_to("/etc")
    os.mkfifo(root / "fifo")
    os.mknod(root / "gone", 0o20000, 0)
    with (root / "hole").open("wb") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize("change", CHANGES)
def test_a_digest_differs_with_anything_but_times(tmp_path: Path, change: Callable[[Path], None]) -> None:
    before = list[str]()
    for name in "ab":
        root = tmp_path / name
        root.mkdir()
        _tree(root)
        before.append(digest(root))
    assert before[0] == before[1]
    os.utime(root / "file", (1, 1))
    os.setxattr(root / "dir", "trusted.overlay.origin", b"notes of overlayfs")
    with (root / "hole").open("r+b") as file:
        file.write(bytes(100_000))  # how it is stored does not count
    assert digest(root) == before[0]
    change(root)
    assert digest(root) != before[0]


def test_a_digest_of_too_much_is_refused(volumes: Volumes, monkeypatch: pytest.MonkeyPatch) -> None:
    layer_of(volumes, hostile.one_extent_thousands_of_times)
    monkeypatch.setattr(digests, "CPU_SECONDS", 1)
    with pytest.raises(Undigestible, match="seconds"):
        digest_of(volumes.upper(LAYER), 0)
