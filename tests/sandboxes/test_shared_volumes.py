"""What the kernel's own trees say about volumes and layers that share content."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from buntime.plan import MB
from buntime.sandboxes.kernel import trees
from buntime.sandboxes.kernel.shares import SLACK
from buntime.sandboxes.kernel.subvolumes import NO_LIMIT, opened
from buntime.sandboxes.kernel.trees import Content, content_of
from buntime.sandboxes.kernel.volume import Volumes
from tests.sandboxes import hostile
from tests.sandboxes.hostile import Tree
from tests.sandboxes.test_volume import mounted
from tests.waiting import until

pytestmark = pytest.mark.sandbox

VOLUME, COPY, LAYER, OTHER = "volaaaaaaaaaaaa", "volcccccccccccc", "layaaaaaaaaaaaa", "laybbbbbbbbbbbb"
LIMIT = 256  # MB


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


def upper(volumes: Volumes, name: str = VOLUME) -> Path:
    return volumes.path(name) / "upper"


def content(volumes: Volumes, name: str = VOLUME) -> Content:
    volumes.sync()
    with opened(volumes.path(name)) as subvolume:
        return content_of(subvolume)


@pytest.mark.parametrize("tree", [*hostile.EXACT, *hostile.UNSENDABLE], ids=lambda tree: tree.__name__)
def test_the_content_of_a_volume_that_shares_nothing_is_exactly_what_it_is_charged_for(
    volumes: Volumes, tree: Tree
) -> None:
    tree(upper(volumes))
    found = content(volumes)
    assert found.size == volumes.used(VOLUME)
    assert (found.old, found.young) == (0, 0)


def test_a_copy_contains_what_the_layer_contains_and_is_charged_for_its_own(volumes: Volumes) -> None:
    (upper(volumes) / "file").write_bytes(os.urandom(20 * MB))
    assert volumes.capture(VOLUME, LAYER) == content(volumes).size == volumes.size_of(LAYER)
    volumes.copy(LAYER, COPY, LIMIT)
    (upper(volumes, COPY) / "more").write_bytes(os.urandom(5 * MB))
    found = content(volumes, COPY)
    assert found.data == 25 * MB
    assert found.old == 20 * MB
    assert 5 * MB <= volumes.used(COPY) < 6 * MB


@pytest.mark.parametrize("step", ["used", "limit_of", "charges"])
def test_no_layer_is_left_when_the_volume_is_removed_during_its_capture(
    volumes: Volumes, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    real = getattr(volumes, step)

    def removed_before(name: str) -> object:
        if name == VOLUME:
            volumes.destroy(VOLUME)
        return real(name)

    monkeypatch.setattr(volumes, step, removed_before)
    with pytest.raises(FileNotFoundError):
        volumes.capture(VOLUME, LAYER)
    assert volumes.all() == set()
    assert VOLUME not in volumes.shares


def test_a_reflink_counts_once_and_a_hole_nothing(volumes: Volumes) -> None:
    one, two = upper(volumes) / "one", upper(volumes) / "two"
    one.write_bytes(os.urandom(8 * MB))
    with one.open("rb") as source, two.open("wb") as target:
        fcntl.ioctl(target.fileno(), 0x40049409, source.fileno())  # FICLONE
        target.truncate(1 << 40)
    assert content(volumes).data == 8 * MB


def test_small_buffers_find_the_same(volumes: Volumes, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(300):
        (upper(volumes) / f"{number}").write_bytes(os.urandom(1000 + 100 * number))
    before = content(volumes)
    monkeypatch.setattr(trees, "BUFFER", 20_000)
    assert content(volumes).data == before.data


def test_a_buffer_may_end_with_the_content_of_a_small_file(volumes: Volumes, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(50):
        (upper(volumes) / f"{number}").write_bytes(b"x")
    volumes.capture(VOLUME, LAYER)  # else nothing is written yet
    before = content(volumes)
    for size in range(1000, 1400):  # of them, some end right behind each of the items
        monkeypatch.setattr(trees, "BUFFER", size)
        assert content(volumes).data == before.data
        assert volumes.sole_bytes([LAYER], [VOLUME]) == 0


def test_small_files_that_only_a_layer_keeps_count(volumes: Volumes) -> None:
    for number in range(1000):
        (upper(volumes) / f"{number}").write_bytes(os.urandom(1500))
    volumes.capture(VOLUME, LAYER)
    assert volumes.sole_bytes([LAYER], [VOLUME]) == 0
    for file in upper(volumes).iterdir():
        file.unlink()
    volumes.capture(VOLUME, OTHER)
    for layers in ([LAYER], [LAYER, OTHER]):
        assert 1_500_000 < volumes.sole_bytes(layers, [VOLUME]) < 2_500_000
    assert volumes.sole_bytes([OTHER], [VOLUME]) < 50_000


def test_a_limit_that_a_power_loss_took_is_found_again(volumes: Volumes) -> None:
    (upper(volumes) / "file").write_bytes(os.urandom(20 * MB))
    volumes.capture(VOLUME, LAYER)
    volumes.copy(LAYER, COPY, LIMIT)
    for name in (LAYER, COPY):
        volumes._limit(name, NO_LIMIT)
    volumes.shares.clear()
    volumes.open(COPY, LIMIT)
    assert volumes.limit_of(COPY) - volumes.used(COPY) == LIMIT * MB - volumes.size_of(LAYER) + 20 * MB
    assert volumes.size_of(LAYER) == content(volumes).size


def test_a_server_that_starts_anew_leaves_the_limits_as_they_are(volumes: Volumes) -> None:
    (upper(volumes) / "file").write_bytes(os.urandom(20 * MB))
    volumes.capture(VOLUME, LAYER)
    volumes.copy(LAYER, COPY, LIMIT)
    before = [volumes.limit_of(name) for name in (VOLUME, COPY)]
    volumes.shares.clear()
    for name in (VOLUME, COPY):
        volumes.limit(name, LIMIT)
    assert [volumes.limit_of(name) for name in (VOLUME, COPY)] == before
    assert volumes.shares.keys() == {VOLUME, COPY}
    assert before[0] <= LIMIT * MB + SLACK


def test_a_volume_that_shares_nothing_keeps_its_plain_limit(volumes: Volumes) -> None:
    (upper(volumes) / "file").write_bytes(b"x")
    assert volumes.limit_of(VOLUME) == LIMIT * MB
    assert volumes.shares == {}
    volumes.capture(VOLUME, LAYER)
    pieces = list(volumes.send(LAYER, 64 * MB))
    volumes.destroy(LAYER)
    volumes.receive(LAYER, None, iter(pieces))
    assert volumes.shares.keys() == {VOLUME}


def test_the_kernel_keeps_no_account_of_what_is_gone(volumes: Volumes) -> None:
    (upper(volumes) / "file").write_bytes(os.urandom(20 * MB))
    volumes.capture(VOLUME, LAYER)
    account = volumes.quota(VOLUME)
    volumes.destroy(VOLUME)
    for _ in range(100):
        _forget(volumes)
    assert account.exists(), "the layer's content is charged to it"
    volumes.destroy(LAYER)

    def is_gone() -> bool:
        _forget(volumes)
        return not account.exists()

    until(is_gone, "the account to go")  # the kernel removes a deleted subvolume in its own time


def _forget(volumes: Volumes) -> None:
    volumes.sync()
    volumes.forget_past()
