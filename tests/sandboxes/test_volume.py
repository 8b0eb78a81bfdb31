"""Volumes on a real btrfs file system are sent, received and limited, whatever files they contain."""

import errno
import os
import shutil
import signal
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from buntime.config import Config
from buntime.errors import Unavailable
from buntime.plan import MB
from buntime.ports import ArchiveUnavailable, VolumeLost, VolumeUnsendable
from buntime.sandboxes.kernel import transfer
from buntime.sandboxes.kernel.commands import call
from buntime.sandboxes.kernel.file_system import GB
from buntime.sandboxes.kernel.volume import Volumes
from tests.manifest import differences, manifest
from tests.sandboxes import hostile
from tests.sandboxes.hostile import Tree

pytestmark = pytest.mark.sandbox

SANDBOX = "sbaaaaaaaaaaaa"
LARGEST = 256 * MB


@contextmanager
def mounted(size_gb: int) -> Iterator[Volumes]:
    directory = Path(tempfile.mkdtemp(prefix="buntime-test-", dir="/var/tmp"))
    volumes = Volumes(Config(data_dir=directory, volumes_gb=size_gb))
    try:
        volumes.mount()
        yield volumes
    finally:
        volumes.unmount()
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def opened() -> Iterator[Volumes]:
    with mounted(2) as volumes:
        yield volumes


@pytest.fixture
def volumes(opened: Volumes) -> Iterator[Volumes]:
    """Yields volumes that include one of 64 MB."""
    opened.create(SANDBOX, 64)
    try:
        yield opened
    finally:
        for sandbox in opened.all():
            opened.destroy(sandbox)


def upper(volumes: Volumes) -> Path:
    return volumes.path(SANDBOX) / "upper"


def sent(volumes: Volumes, largest: int = LARGEST) -> list[bytes]:
    return list(volumes.send(SANDBOX, largest))


def moved(volumes: Volumes, limit_mb: int = 64) -> None:
    """Sends the volume, destroys it, and receives it again."""
    pieces = sent(volumes)
    volumes.destroy(SANDBOX)
    volumes.receive(SANDBOX, limit_mb, iter(pieces))


def left_over(volumes: Volumes) -> list[str]:
    return [path.name for path in (volumes.directory / "incoming").iterdir()]


# --- any content ---


@pytest.mark.parametrize("tree", hostile.EXACT, ids=lambda tree: tree.__name__)
def test_a_tree_comes_back_with_the_same_content_and_size(volumes: Volumes, tree: Tree) -> None:
    tree(upper(volumes))
    volumes.sync()
    before, used = manifest(upper(volumes)), volumes.used(SANDBOX)
    moved(volumes)
    assert differences(before, manifest(upper(volumes))) == []
    assert volumes.used(SANDBOX) <= used * 1.1 + 64 * 1024


@pytest.mark.parametrize("tree", hostile.UNSENDABLE, ids=lambda tree: tree.__name__)
def test_an_unsendable_volume_is_an_error_and_stays_usable(volumes: Volumes, tree: Tree) -> None:
    tree(upper(volumes))
    with pytest.raises(VolumeUnsendable):
        sent(volumes)
    volumes.open(SANDBOX, 64)
    (upper(volumes) / "more").write_bytes(b"x")


def test_a_stream_larger_than_its_limit_is_cut_off(volumes: Volumes) -> None:
    (upper(volumes) / "file").write_bytes(os.urandom(8 * MB))
    with pytest.raises(VolumeUnsendable, match="more than"):
        sent(volumes, largest=4 * MB)


def test_a_tree_that_takes_the_kernel_too_long_is_unsendable(volumes: Volumes, monkeypatch: pytest.MonkeyPatch) -> None:
    hostile.levels(upper(volumes), 1900)
    monkeypatch.setattr(transfer, "CPU_SECONDS", 1)
    monkeypatch.setattr(transfer, "SLOWEST", 2 * LARGEST)
    with pytest.raises(VolumeUnsendable, match="seconds"):
        sent(volumes)


def test_twenty_moves_leave_the_same_bytes_charged_and_the_limit_in_force(volumes: Volumes) -> None:
    for number in range(300):
        (upper(volumes) / f"{number}").write_bytes(os.urandom(20_000))
    moved(volumes)
    first = volumes.used(SANDBOX)
    for _ in range(19):
        moved(volumes)
    assert abs(volumes.used(SANDBOX) - first) < first * 0.03
    with pytest.raises(OSError, match="quota") as full:
        fill(upper(volumes) / "more", 64)
    assert full.value.errno == errno.EDQUOT
    assert volumes.is_full(SANDBOX)
    assert 60 * MB < volumes.used(SANDBOX) <= 64 * MB
    (upper(volumes) / "more").unlink()
    volumes.sync()
    assert not volumes.is_full(SANDBOX)


def fill(path: Path, size_mb: int) -> None:
    with path.open("wb", buffering=0) as file:
        for _ in range(size_mb):
            file.write(os.urandom(MB))
            os.fsync(file.fileno())


# --- complete or not at all ---


def test_a_volume_is_writable_as_soon_as_its_send_is_closed(volumes: Volumes) -> None:
    (upper(volumes) / "file").write_bytes(os.urandom(16 * MB))
    stream = volumes.send(SANDBOX, LARGEST)
    assert any(stream)
    with pytest.raises(OSError, match="Read-only"):
        (upper(volumes) / "more").write_bytes(b"")
    stream.close()  # type: ignore[attr-defined]
    (upper(volumes) / "more").write_bytes(b"x")


def test_a_volume_that_is_being_sent_cannot_be_opened(volumes: Volumes) -> None:
    (upper(volumes) / "file").write_bytes(os.urandom(16 * MB))
    stream = volumes.send(SANDBOX, LARGEST)
    assert any(stream)
    with pytest.raises(PermissionError):
        volumes.open(SANDBOX, 64)
    stream.close()  # type: ignore[attr-defined]
    volumes.open(SANDBOX, 64)


def test_a_missing_volume_cannot_be_sent(volumes: Volumes) -> None:
    with pytest.raises(VolumeLost):
        list(volumes.send("sbzzzzzzzzzzzz", LARGEST))


def broken_off(pieces: Iterable[bytes]) -> Iterator[bytes]:
    yield from pieces
    raise ArchiveUnavailable("away")


def test_nothing_is_left_of_interrupted_content(volumes: Volumes) -> None:
    (upper(volumes) / "file").write_bytes(os.urandom(4 * MB))
    pieces = sent(volumes)
    volumes.destroy(SANDBOX)
    for part in (0, 1, len(pieces) - 1, len(pieces)):
        with pytest.raises(ArchiveUnavailable):
            volumes.receive(SANDBOX, 64, broken_off(pieces[:part]))
        assert (volumes.all(), left_over(volumes)) == (set(), [])


def test_an_incomplete_stream_is_refused_and_leaves_nothing(volumes: Volumes) -> None:
    (upper(volumes) / "file").write_bytes(os.urandom(4 * MB))
    pieces = sent(volumes)
    volumes.destroy(SANDBOX)
    whole = b"".join(pieces)
    damaged = whole[: MB + 5] + b"?" + whole[MB + 6 :]
    for wrong in (b"", b"?", bytes(MB), whole[:-1], whole[:-10], whole + b"?", whole[17:], damaged):
        with pytest.raises(ValueError, match="no whole stream"):
            volumes.receive(SANDBOX, 64, iter([wrong]))
        assert (volumes.all(), left_over(volumes)) == (set(), [])


def test_a_volume_can_have_another_id_than_when_it_was_sent(volumes: Volumes) -> None:
    (upper(volumes) / "file").write_bytes(b"kept")
    pieces = sent(volumes)
    volumes.destroy(SANDBOX)
    volumes.receive("sbzzzzzzzzzzzz", 64, iter(pieces))
    assert (volumes.all(), left_over(volumes)) == ({"sbzzzzzzzzzzzz"}, [])
    assert (volumes.upper("sbzzzzzzzzzzzz") / "file").read_bytes() == b"kept"


def test_an_existing_volume_is_never_replaced(volumes: Volumes) -> None:
    pieces = sent(volumes)
    (upper(volumes) / "newer").write_bytes(b"x")
    with pytest.raises(ValueError, match="already"):
        volumes.receive(SANDBOX, 64, iter(pieces))
    assert (upper(volumes) / "newer").read_bytes() == b"x"


def test_a_full_disk_is_the_hosts_failure_and_leaves_nothing(volumes: Volumes) -> None:
    (upper(volumes) / "file").write_bytes(os.urandom(60 * MB))
    with mounted(1) as full:
        full.create("sbfillerfiller", 4096)
        with (full.path("sbfillerfiller") / "filler").open("wb") as filler, suppress(OSError):
            for number in range(GB // MB):
                os.posix_fallocate(filler.fileno(), number * MB, MB)
        with pytest.raises(Unavailable):
            full.receive(SANDBOX, 64, volumes.send(SANDBOX, LARGEST))
        assert (full.exists(SANDBOX), left_over(full)) == (False, [])


def killing(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yields the pieces, and kills the process that sends or receives them."""
    for number, piece in enumerate(pieces):
        yield piece
        if number == 1:
            _kill_our_btrfs()


def _kill_our_btrfs() -> None:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            name, rest = (process / "stat").read_text().rsplit(")", 1)
            if name.endswith("(btrfs") and int(rest.split()[1]) == os.getpid():
                os.kill(int(process.name), signal.SIGKILL)


def test_a_killed_process_is_the_hosts_failure_and_not_the_streams(volumes: Volumes) -> None:
    (upper(volumes) / "file").write_bytes(os.urandom(32 * MB))
    with pytest.raises(Unavailable):
        list(killing(volumes.send(SANDBOX, LARGEST)))
    pieces = sent(volumes)
    volumes.destroy(SANDBOX)
    with pytest.raises(Unavailable):
        volumes.receive(SANDBOX, 64, killing(pieces))
    assert (volumes.all(), left_over(volumes)) == (set(), [])
    volumes.receive(SANDBOX, 64, iter(pieces))


# --- after a crash ---


def test_the_next_mount_removes_what_a_killed_server_received(volumes: Volumes) -> None:
    place = volumes.directory / "incoming" / SANDBOX
    place.mkdir()
    transfer.received(place, volumes.send(SANDBOX, LARGEST))
    assert volumes.all() == {SANDBOX}
    assert left_over(volumes) == [SANDBOX]
    volumes.mount()
    assert volumes.all() == {SANDBOX}
    assert left_over(volumes) == []


def test_opening_a_volume_makes_it_writable_after_a_killed_send(volumes: Volumes) -> None:
    call(["btrfs", "property", "set", "-ts", str(volumes.path(SANDBOX)), "ro", "true"])
    with pytest.raises(OSError, match="Read-only"):
        (upper(volumes) / "file").write_bytes(b"")
    volumes.open(SANDBOX, 64)
    (upper(volumes) / "file").write_bytes(b"x")


def test_directories_that_a_power_loss_removed_are_made_again(volumes: Volumes) -> None:
    upper(volumes).rmdir()
    assert volumes.exists(SANDBOX)
    volumes.open(SANDBOX, 64)
    (upper(volumes) / "file").write_bytes(b"x")
