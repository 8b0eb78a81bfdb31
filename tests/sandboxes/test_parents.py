"""Chains of streams on a real btrfs file system: a full one, and increments since states that are kept as parents."""

import fcntl
import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from buntime.errors import Unavailable
from buntime.plan import MB
from buntime.ports import ArchiveUnavailable, VolumeUnsendable
from buntime.sandboxes.kernel import subvolumes, transfer
from buntime.sandboxes.kernel.commands import call
from buntime.sandboxes.kernel.shares import SLACK
from buntime.sandboxes.kernel.subvolumes import opened
from buntime.sandboxes.kernel.volume import Volumes
from tests.manifest import Entry, differences, manifest
from tests.sandboxes import hostile
from tests.sandboxes.hostile import Tree
from tests.sandboxes.test_volume import fill, mounted

pytestmark = pytest.mark.sandbox

VOLUME, OTHER, LAYER = "volaaaaaaaaaaaa", "volbbbbbbbbbbbb", "laybbbbbbbbbbbb"
LIMIT = 256  # MB
LARGEST = 1024 * MB


@pytest.fixture(scope="module")
def shared() -> Iterator[Volumes]:
    with mounted(4) as volumes:
        yield volumes


@pytest.fixture
def volumes(shared: Volumes) -> Iterator[Volumes]:
    """Yields volumes that include an empty one."""
    shared.create(VOLUME, LIMIT)
    try:
        yield shared
    finally:
        for name in shared.all():
            shared.destroy(name)
        assert not shared.parents.volumes


def upper(volumes: Volumes) -> Path:
    return volumes.upper(VOLUME)


def sent(volumes: Volumes, mark: str, since: str = "") -> bytes:
    """The stream of the volume as it is now. Its state is kept under the mark, and no older one."""
    volumes.keep(VOLUME, mark)
    stream = b"".join(volumes.send_since(VOLUME, LARGEST, mark, since))
    volumes.parents.drop(VOLUME, but=mark)
    return stream


def receive(volumes: Volumes, chain: list[bytes], mark: str) -> None:
    full, *increments = (iter([stream]) for stream in chain)
    volumes.receive(VOLUME, LIMIT, full, increments, mark)


def restore(volumes: Volumes, chain: list[bytes], mark: str) -> None:
    volumes.destroy(VOLUME)
    receive(volumes, chain, mark)


def blocks(volumes: Volumes) -> dict[Path, int]:
    """Path → 512 bytes each, of files."""
    volumes.sync()
    files = (path for path in upper(volumes).rglob("*") if path.is_file() and not path.is_symlink())
    return {path: path.stat().st_blocks for path in files}


def other_blocks(volumes: Volumes, before: dict[Path, int]) -> list[Path]:
    """Files that take more or less room. Content of a few bytes may be in the tree itself, and have no block."""
    return [path for path, count in blocks(volumes).items() if abs(count - before[path]) > 8]


def left_over(volumes: Volumes) -> list[str]:
    return [path.name for name in ("incoming", "parents") for path in (volumes.directory / name).iterdir()]


def kept(volumes: Volumes) -> list[str]:
    return [path.name for path in (volumes.directory / "parents").iterdir()]


def test_an_increment_is_as_small_as_the_change(volumes: Volumes) -> None:
    (upper(volumes) / "big").write_bytes(os.urandom(30 * MB))
    full = sent(volumes, "1")
    with (upper(volumes) / "big").open("r+b") as file:
        file.seek(10 * MB)
        file.write(os.urandom(MB))
    (upper(volumes) / "big").rename(upper(volumes) / "other")
    increment = sent(volumes, "2", "1")
    assert len(full) > 30 * MB
    assert MB < len(increment) < MB + 4096
    before = manifest(upper(volumes))
    restore(volumes, [full, increment], "2")
    assert differences(before, manifest(upper(volumes))) == []
    assert volumes.parents.marks(VOLUME) == {"2"}


@pytest.mark.parametrize("tree", hostile.EXACT, ids=lambda tree: tree.__name__)
def test_a_tree_that_comes_and_goes_in_increments_is_exact(volumes: Volumes, tree: Tree) -> None:
    (upper(volumes) / "there").mkdir()
    (upper(volumes) / "some").write_bytes(os.urandom(MB))
    chain = [sent(volumes, "1")]
    tree(upper(volumes) / "there")
    chain.append(sent(volumes, "2", "1"))
    with_tree = manifest(upper(volumes))
    restore(volumes, chain, "2")
    assert differences(with_tree, manifest(upper(volumes))) == []
    call(["rm", "-rf", str(upper(volumes) / "there")])
    (upper(volumes) / "there").write_bytes(b"a file now")
    without = manifest(upper(volumes))
    chain.append(sent(volumes, "3", "2"))
    restore(volumes, chain, "3")
    assert differences(without, manifest(upper(volumes))) == []
    restore(volumes, chain[:2], "2")
    assert differences(with_tree, manifest(upper(volumes))) == []


# --- any changes ---


class Changer:
    """Changes a tree at random, as programs do."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.chance = random.Random(seed)
        self.count = 0

    def fresh(self, parent: Path | None = None) -> Path:
        self.count += 1
        return (parent or self.chance.choice(self.directories())) / f"n{self.count}"

    def directories(self) -> list[Path]:
        return [self.root, *sorted(path for path in self.root.rglob("*") if path.is_dir() and not path.is_symlink())]

    def files(self) -> list[Path]:
        return sorted(path for path in self.root.rglob("*") if path.is_file() and not path.is_symlink())

    def change(self) -> None:
        for _ in range(self.chance.randrange(1, 25)):
            with suppress(IndexError, FileExistsError):  # there is no file yet, or one in the way
                self.chance.choice(self.kinds)(self)

    def make(self) -> None:
        self.fresh().write_bytes(self.chance.randbytes(self.chance.choice([0, 10, 5000, 200_000])))

    def make_directory(self) -> None:
        self.fresh().mkdir(mode=self.chance.choice([0o700, 0o755, 0o1777, 0o2750]))

    def overwrite(self) -> None:
        with self.chance.choice(self.files()).open("r+b") as file:
            file.seek(self.chance.randrange(300_000))
            file.write(self.chance.randbytes(7000))

    def append(self) -> None:
        with self.chance.choice(self.files()).open("ab") as file:
            file.write(b"appended")

    def cut(self) -> None:
        os.truncate(self.chance.choice(self.files()), self.chance.choice([0, 3000, 1 << 33]))

    def punch(self) -> None:
        with self.chance.choice(self.files()).open("r+b") as file:
            hostile._punch(file.fileno(), 4096 * self.chance.randrange(20), 4096 * self.chance.randrange(1, 20))

    def empty_and_extend(self) -> None:
        path = self.chance.choice(self.files())
        os.truncate(path, 0)
        os.truncate(path, self.chance.randrange(1 << 20))

    def write_zeros(self) -> None:
        with self.chance.choice(self.files()).open("r+b") as file:
            file.write(bytes(self.chance.randrange(200_000)))

    def remove(self) -> None:
        self.chance.choice(self.files()).unlink()

    def remove_tree(self) -> None:
        if len(found := self.directories()) > 3:
            shutil.rmtree(self.chance.choice(found[1:]))

    def link(self) -> None:
        source = self.chance.choice(self.files())
        self.fresh().hardlink_to(source)

    def link_symbolically(self) -> None:
        self.fresh().symlink_to(self.chance.choice(["nowhere", "/etc", "../.."]))

    def rename(self) -> None:
        source = self.chance.choice(self.files())
        source.rename(self.chance.choice([self.fresh(), self.chance.choice(self.files())]))

    def rename_directory(self) -> None:
        if len(found := self.directories()) > 1:
            source = self.chance.choice(found[1:])
            above = [path for path in found if path != source and source not in path.parents]
            source.rename(self.fresh(self.chance.choice(above)))

    def exchange(self) -> None:
        one, other, aside = self.chance.choice(self.files()), self.chance.choice(self.files()), self.root / "aside"
        one.rename(aside)
        if other.exists():
            other.rename(one)
        aside.rename(other)

    def clone(self) -> None:
        source, target = self.chance.choice(self.files()), self.fresh()
        with source.open("rb") as old, target.open("wb") as new:
            fcntl.ioctl(new.fileno(), hostile.FICLONE, old.fileno())

    def own(self) -> None:
        path = self.chance.choice(self.files())
        os.chown(path, self.chance.randrange(2000), self.chance.randrange(2000))
        path.chmod(self.chance.choice([0o600, 0o4711, 0o644]))

    def let_bind(self) -> None:
        capability = bytes.fromhex("0100000200040000000000000000000000000000")
        os.setxattr(self.chance.choice(self.files()), "security.capability", capability)

    def attribute(self) -> None:
        path, name = self.chance.choice([*self.files(), *self.directories()]), f"user.{self.chance.randrange(3)}"
        if name in os.listxattr(path) and self.chance.random() < 0.5:
            os.removexattr(path, name)
        else:
            os.setxattr(path, name, self.chance.randbytes(self.chance.choice([0, 100, 3000])))

    def whiteout(self) -> None:
        os.mknod(self.fresh(), 0o020000, 0)

    def touch(self) -> None:
        os.utime(self.chance.choice([*self.files(), *self.directories()]), ns=(0, self.chance.randrange(1 << 60)))

    kinds: tuple[Callable[["Changer"], None], ...] = (
        *(
            make,
            make_directory,
            overwrite,
            append,
            cut,
            punch,
            empty_and_extend,
            write_zeros,
            remove,
            remove_tree,
            link,
            link_symbolically,
            rename,
        ),
        *(rename_directory, rename_directory, exchange, clone, own, let_bind, attribute, whiteout, touch),
    )


@pytest.mark.parametrize("seed", range(12))
def test_any_changes_come_back_exactly_from_chains_of_any_length(volumes: Volumes, seed: int) -> None:
    changer = Changer(upper(volumes), seed)
    chain: list[bytes] = []
    states: list[dict[bytes, Entry]] = []
    for turn in range(14):
        changer.change()
        try:
            chain.append(sent(volumes, f"m{turn}", f"m{turn - 1}" if chain else ""))
        except VolumeUnsendable:  # as an increment
            volumes.parents.drop(VOLUME)
            states, chain = [], [sent(volumes, f"m{turn}")]
        states.append(manifest(upper(volumes)))
        room = blocks(volumes)
        if changer.chance.random() < 0.4:
            restore(volumes, chain, f"m{turn}")
            assert differences(states[-1], manifest(upper(volumes))) == []
            assert other_blocks(volumes, room) == []
    for count, state in enumerate(states, start=1):
        restore(volumes, chain[:count], "m")
        assert differences(state, manifest(upper(volumes))) == []


def test_a_new_owner_does_not_take_a_bit_from_the_mode(volumes: Volumes) -> None:
    """An increment would lose the bit, so the volume is sent whole."""
    program, other = upper(volumes) / "program", upper(volumes) / "other"
    for file in (program, other):
        file.write_bytes(b"x")
        file.chmod(0o4711)
    sent(volumes, "1")
    os.chown(program, 1000, 1000)
    program.chmod(0o4711)
    with pytest.raises(VolumeUnsendable):
        sent(volumes, "2", "1")
    volumes.parents.drop(VOLUME)
    chain = [sent(volumes, "3")]
    os.chown(other, 1000, 1000)
    other.chmod(0o4755)
    (upper(volumes) / "link").symlink_to("nowhere")
    os.chown(upper(volumes) / "link", 5, 5, follow_symlinks=False)
    chain.append(sent(volumes, "4", "3"))
    before = manifest(upper(volumes))
    restore(volumes, chain, "4")
    assert differences(before, manifest(upper(volumes))) == []


def punched(file: Path) -> None:
    with file.open("r+b") as content:
        hostile._punch(content.fileno(), 256 << 10, 512 << 10)


def emptied(file: Path) -> None:
    os.truncate(file, 0)
    os.truncate(file, MB)


def extended(file: Path) -> None:
    os.truncate(file, 1 << 40)


def zeroed(file: Path) -> None:
    file.write_bytes(bytes(MB))


@pytest.mark.parametrize("change", [punched, emptied, extended, zeroed])
def test_a_hole_that_an_increment_makes_takes_no_room(volumes: Volumes, change: Callable[[Path], None]) -> None:
    (upper(volumes) / "file").write_bytes(os.urandom(MB))
    chain = [sent(volumes, "1")]
    (upper(volumes) / "inside").mkdir()
    (upper(volumes) / "file").rename(upper(volumes) / "inside/file")
    change(upper(volumes) / "inside/file")
    (upper(volumes) / "new").write_bytes(bytes(MB + 5))
    with (upper(volumes) / "sparse").open("wb") as file:
        file.seek(1 << 40)
        file.write(b"end")
    chain.append(sent(volumes, "2", "1"))
    before, room = manifest(upper(volumes)), blocks(volumes)
    restore(volumes, chain, "2")
    assert differences(before, manifest(upper(volumes))) == []
    assert other_blocks(volumes, room) == []


# --- complete or not at all ---


def test_streams_that_do_not_go_on_from_one_another_are_refused_and_leave_nothing(volumes: Volumes) -> None:
    (upper(volumes) / "file").write_bytes(os.urandom(MB))
    chain = [sent(volumes, "1")]
    for mark, since in (("2", "1"), ("3", "2")):
        (upper(volumes) / mark).write_bytes(b"x")
        chain.append(sent(volumes, mark, since))
    volumes.destroy(VOLUME)
    for wrong in ([0, 0], [0, 1, 0], [0, 2], [0, 2, 1], [1], [1, 2]):
        with pytest.raises((ValueError, Unavailable)):
            receive(volumes, [chain[number] for number in wrong], "x")
        assert (volumes.all(), left_over(volumes)) == (set(), [])
    receive(volumes, chain, "3")
    assert (upper(volumes) / "3").read_bytes() == b"x"


def test_nothing_is_left_where_an_increment_breaks_off(volumes: Volumes) -> None:
    (upper(volumes) / "file").write_bytes(os.urandom(MB))
    full = sent(volumes, "1")
    (upper(volumes) / "more").write_bytes(os.urandom(MB))
    increment = sent(volumes, "2", "1")
    volumes.destroy(VOLUME)

    def broken_off() -> Iterator[bytes]:
        yield increment[: len(increment) // 2]
        raise ArchiveUnavailable("away")

    with pytest.raises(ArchiveUnavailable):
        volumes.receive(VOLUME, LIMIT, iter([full]), [broken_off()], "2")
    with pytest.raises(ValueError, match="no whole stream"):
        receive(volumes, [full, increment[:-20]], "2")
    assert (volumes.all(), left_over(volumes)) == (set(), [])


def test_a_volume_that_an_earlier_version_received_begins_a_chain(volumes: Volumes) -> None:
    """It has the sender's id, as its snapshots would."""
    (upper(volumes) / "file").write_bytes(os.urandom(MB))
    stream = sent(volumes, "1")
    volumes.destroy(VOLUME)
    place = volumes.directory / "incoming" / VOLUME
    place.mkdir()
    transfer.received(place, iter([stream]))
    with opened(place / f"{VOLUME}.1") as grown:
        subvolumes.set_read_only(grown, read_only=False)
        assert subvolumes.has_sender(grown)
    (place / f"{VOLUME}.1").rename(volumes.path(VOLUME))
    volumes.limit(VOLUME, LIMIT)
    chain: list[bytes] = []
    for number in range(4):
        (upper(volumes) / f"{number}").write_bytes(b"x")
        chain.append(sent(volumes, f"m{number}", f"m{number - 1}" if number else ""))
    before = manifest(upper(volumes))
    restore(volumes, chain, "m3")
    assert differences(before, manifest(upper(volumes))) == []


# --- what is kept ---


def test_parents_go_with_their_volume(volumes: Volumes) -> None:
    (upper(volumes) / "file").write_bytes(os.urandom(MB))
    sent(volumes, "1")
    assert kept(volumes) == [f"{VOLUME}.1"]
    volumes.destroy(VOLUME)
    assert left_over(volumes) == []


def test_after_a_crash_only_the_parents_that_the_store_names_stay(volumes: Volumes) -> None:
    (upper(volumes) / "file").write_bytes(os.urandom(MB))
    for mark in ("old", "named", "new"):
        volumes.keep(VOLUME, mark)
    volumes.mount()
    assert volumes.all() == {VOLUME}
    assert volumes.parents.marks(VOLUME) == {"old", "named", "new"}
    assert volumes.parents.keep({VOLUME: "named"}) == 2
    assert kept(volumes) == [f"{VOLUME}.named"]
    volumes.mount()
    assert volumes.parents.keep({}) == 1
    assert left_over(volumes) == []


def test_a_parent_that_is_being_sent_is_removed_later_and_keeps_no_other_from_it(volumes: Volumes) -> None:
    """As after a kill of a server whose process goes on."""
    (upper(volumes) / "file").write_bytes(os.urandom(4 * MB))
    for mark in ("1", "2", "3"):
        volumes.keep(VOLUME, mark)
    volumes.create(OTHER, LIMIT)
    volumes.keep(OTHER, "4")
    stream = volumes.send_since(VOLUME, LARGEST, "2", "")
    assert next(stream)
    with pytest.raises(OSError, match="not permitted"):
        volumes.parents.keep({VOLUME: "1"})
    assert not volumes.parents.marks(OTHER)
    stream.close()  # type: ignore[attr-defined]
    volumes.parents.keep({VOLUME: "1"})
    assert kept(volumes) == [f"{VOLUME}.1"]


def test_the_disk_that_a_volume_and_its_parents_take_is_known_however_it_came_here(volumes: Volumes) -> None:
    (upper(volumes) / "file").write_bytes(os.urandom(20 * MB))
    chain = [sent(volumes, "1")]
    for mark, since in (("2", "1"), ("3", "2")):
        (upper(volumes) / mark).write_bytes(os.urandom(3 * MB))
        chain.append(sent(volumes, mark, since))
    before = volumes.disk_bytes(VOLUME)
    assert 26 * MB <= before < 27 * MB
    restore(volumes, chain, "3")
    assert abs(volumes.disk_bytes(VOLUME) - before) < MB
    volumes.mount()
    assert abs(volumes.disk_bytes(VOLUME) - before) < MB
    (upper(volumes) / "file").write_bytes(os.urandom(20 * MB))
    volumes.sync()
    assert 45 * MB < volumes.disk_bytes(VOLUME) < 48 * MB, "the parent keeps the file as it was"
    volumes.measure(VOLUME)
    assert 19 * MB < volumes.parents.own[VOLUME] < 21 * MB
    volumes.parents.drop(VOLUME)
    assert not volumes.parents.own


def test_a_volume_whose_parent_is_kept_has_its_limit(volumes: Volumes) -> None:
    (upper(volumes) / "file").write_bytes(os.urandom(20 * MB))
    chain = [sent(volumes, "1")]
    slack = min(SLACK, volumes.contained(VOLUME).size)
    assert abs(volumes.limit_of(VOLUME) - LIMIT * MB - slack) < MB
    restore(volumes, chain, "1")
    assert abs(volumes.limit_of(VOLUME) - LIMIT * MB - slack) < MB


def _check_contained(volumes: Volumes, least: int, most: int) -> None:
    """`least`, `most`: bytes by which the size that is known is larger than what the volume contains."""
    volumes.sync()
    assert least <= volumes.contained(VOLUME).size - volumes.content_size(VOLUME) <= most


def test_what_a_volume_contains_is_known_from_what_was_added_since_its_parent(
    volumes: Volumes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        (upper(volumes) / f"file{number}").write_bytes(os.urandom(5 * MB))
    chain = [sent(volumes, "1")]
    _check_contained(volumes, 0, 0)
    (upper(volumes) / "file0").write_bytes(os.urandom(MB))
    _check_contained(volumes, 5 * MB, 6 * MB)
    chain.append(sent(volumes, "2", "1"))
    (upper(volumes) / "file1").unlink()
    _check_contained(volumes, 10 * MB, 11 * MB)
    chain.append(sent(volumes, "3", "2"))
    with monkeypatch.context() as without_a_whole_look:
        without_a_whole_look.setattr("buntime.sandboxes.kernel.content_sizes.content_of", None)
        restore(volumes, chain, "3")
        assert volumes.contained(VOLUME).size > 30 * MB
    _check_contained(volumes, 5 * MB, 11 * MB)
    (upper(volumes) / "file2").write_bytes(os.urandom(10 * MB))
    _check_contained(volumes, 0, 0)


def test_a_full_volume_is_sent_received_opened_and_can_delete(volumes: Volumes) -> None:
    (upper(volumes) / "file").write_bytes(os.urandom(20 * MB))
    chain = [sent(volumes, "1")]
    with pytest.raises(OSError, match="quota"):
        fill(upper(volumes) / "all", 2 * LIMIT)
    chain.append(sent(volumes, "2", "1"))
    restore(volumes, chain, "2")
    volumes.open(VOLUME, LIMIT)
    volumes.measure(VOLUME)
    with pytest.raises(OSError, match="quota"):
        fill(upper(volumes) / "more", 2 * LIMIT)
    chain.append(sent(volumes, "3", "2"))
    restore(volumes, chain, "3")
    volumes.open(VOLUME, LIMIT)
    (upper(volumes) / "all").unlink()
    volumes.sync()
    volumes.measure(VOLUME)
    (upper(volumes) / "fits").write_bytes(os.urandom(50 * MB))
    assert volumes.content_size(VOLUME) < LIMIT * MB + SLACK


def test_a_layer_of_a_restored_volume_is_sent_and_received(volumes: Volumes) -> None:
    (upper(volumes) / "file").write_bytes(os.urandom(MB))
    chain = [sent(volumes, "1")]
    (upper(volumes) / "more").write_bytes(b"x")
    chain.append(sent(volumes, "2", "1"))
    restore(volumes, chain, "2")
    size = volumes.capture(VOLUME, LAYER)
    assert size >= MB
    pieces = list(volumes.send(LAYER, LARGEST))
    volumes.destroy(LAYER)
    volumes.receive(LAYER, None, iter(pieces))
    assert differences(manifest(upper(volumes)), manifest(volumes.upper(LAYER))) == []
    (upper(volumes) / "more").write_bytes(b"y")
    chain.append(sent(volumes, "3", "2"))
    restore(volumes, chain, "3")
    assert (upper(volumes) / "more").read_bytes() == b"y"
