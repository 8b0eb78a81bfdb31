"""When a watchdog fences, by what the server has shown it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from buntime.fleet.lease_file import LeaseFile, Shown, Watched
from buntime.fleet.watchdog import Watchdog


class Silence:
    """`fence.Fence`. It counts how often it was closed."""

    def __init__(self) -> None:
        self.closed = 0

    def prepare(self) -> None: ...
    def close(self) -> None:
        self.closed += 1

    def extend(self, seconds: float) -> None:
        raise AssertionError("the server alone opens")

    def thaw(self) -> None:
        raise AssertionError("the server alone lifts")

    def remove(self) -> None: ...


class Scene:
    def __init__(self, path: Path) -> None:
        self.now, self.fence, self.file, self.path = 100.0, Silence(), LeaseFile(path), path
        self.watchdog = self.another()

    def another(self) -> Watchdog:
        return Watchdog(self.file, self.fence, lambda: self.now)

    def fences(self) -> bool:
        before = self.fence.closed
        self.watchdog.look()
        return self.fence.closed > before


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path / "lease")
    yield scene
    scene.file.close()


def test_a_host_whose_server_has_shown_nothing_is_fenced(scene: Scene) -> None:
    assert scene.fences()


def test_a_host_is_fenced_when_the_time_that_was_shown_is_over(scene: Scene) -> None:
    scene.file.show(Shown(1, 104.0))
    assert not scene.fences()
    scene.now = 103.9
    assert not scene.fences()
    scene.now = 104.0
    assert scene.fences()
    assert scene.fences(), "again at each look: somebody may have lifted it"


def test_a_renewal_in_time_moves_the_end(scene: Scene) -> None:
    scene.file.show(Shown(1, 104.0))
    assert not scene.fences()
    scene.file.show(Shown(1, 105.0))
    scene.now = 104.5
    assert not scene.fences()


def test_a_watchdog_looks_again_before_the_end(scene: Scene) -> None:
    scene.file.show(Shown(1, 100.1))
    assert scene.watchdog.look() == 100.1
    scene.file.show(Shown(1, 200.0))
    assert scene.watchdog.look() < 101


def test_a_late_renewal_of_a_fenced_incarnation_counts_for_nothing(scene: Scene) -> None:
    scene.file.show(Shown(1, 100.0))
    assert scene.fences()
    scene.file.show(Shown(1, 200.0))
    assert scene.fences()
    scene.file.show(Shown(2, 200.0))
    assert not scene.fences()


def test_the_next_watchdog_knows_what_the_one_before_has_fenced(scene: Scene) -> None:
    scene.file.show(Shown(1, 100.0))
    assert scene.fences()
    scene.file.show(Shown(1, 200.0))
    scene.watchdog = scene.another()
    assert scene.fences()


def test_a_watchdog_tells_what_it_watches_and_has_fenced(scene: Scene) -> None:
    scene.file.show(Shown(5, 104.0))
    scene.watchdog.look()
    told = scene.file.watched()
    assert told
    assert (told.incarnation, told.fenced) == (5, 0)
    scene.now = 104.0
    scene.watchdog.look()
    told = scene.file.watched()
    assert told
    assert (told.incarnation, told.fenced) == (0, 5)


def test_a_watchdog_that_fences_at_its_own_end_tells_it_so_that_the_server_joins_anew(scene: Scene) -> None:
    scene.file.show(Shown(5, 104.0))
    scene.watchdog.look()
    scene.watchdog.fence()
    told = scene.file.watched()
    assert told
    assert (told.incarnation, told.fenced) == (0, 5)


def test_a_damaged_record_of_the_server_counts_as_none(scene: Scene) -> None:
    scene.file.show(Shown(1, 104.0))
    content = bytearray(scene.path.read_bytes())
    content[20] ^= 1
    scene.path.write_bytes(content)
    assert scene.file.shown() is None
    assert scene.fences()


def test_what_was_shown_in_an_earlier_boot_counts_for_nothing(scene: Scene) -> None:
    scene.file.show(Shown(1, 104.0))
    scene.file.watch(Watched(1, 0, 7, 100.0))
    boot, scene.file._boot = scene.file._boot, bytes(16)
    assert scene.file.shown() is None
    assert scene.file.watched() is None
    scene.file._boot = boot
    assert scene.file.shown() == Shown(1, 104.0)
