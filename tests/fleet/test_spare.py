"""The watchdog and its spare look after each other, and no spare is left behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from buntime.fleet import lease_records, spare
from buntime.fleet.boot_clock import boot_seconds
from buntime.fleet.budget import BUDGET
from buntime.fleet.keeping_spare import SOURCES, spare_of
from buntime.fleet.lease_file import LeaseFile, Shown
from buntime.fleet.watchdog import end_watchdog
from tests.waiting import until

WATCHDOG = """
import sys
from pathlib import Path
from buntime.fleet import keeping_spare
from buntime.fleet.watchdog import watch

class Fence:
    def close(self):
        Path(sys.argv[2]).touch()

keeping_spare.PAUSE = 0.0
watch(Path(sys.argv[1]), Fence(), Path(sys.argv[3]))
"""
LATER = 600.0  # seconds: a lease that does not end in a test
SOON = 0.5


class Scene:
    def __init__(self, directory: Path) -> None:
        self.path, self.fenced, self.group = directory / "lease", directory / "fenced", directory / "group"
        self.file = LeaseFile(self.path)
        self.lease(LATER)
        self.watchdog = self.start()

    def lease(self, seconds: float, incarnation: int = 1) -> None:
        self.file.show(Shown(incarnation, boot_seconds() + seconds))

    def start(self) -> subprocess.Popen[bytes]:
        """A watchdog, once it watches and has a spare of its own."""
        before = spare_of(self.file)
        command = (sys.executable, "-c", WATCHDOG, self.path, self.fenced, self.group)
        self.watchdog = subprocess.Popen(command)
        until(lambda: self._told_pid() == self.watchdog.pid and self.spare not in (0, before), "a spare")
        return self.watchdog

    def _told_pid(self) -> int:
        told = self.file.watched()
        return told.pid if told else 0

    @property
    def spare(self) -> int:
        return spare_of(self.file)

    def kill(self) -> None:
        self.watchdog.kill()
        self.watchdog.wait()

    def cannot_freeze(self) -> None:
        """The group looks like one of cgroup v2 with a process that waits in the kernel."""
        self.group.mkdir()
        (self.group / "cgroup.freeze").touch()
        (self.group / "cgroup.events").write_text("populated 1\nfrozen 0\n")

    @property
    def freezes(self) -> bool:
        with suppress(FileNotFoundError):
            return (self.group / "cgroup.freeze").read_text() == "1"
        return False


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.kill()
    end_watchdog(scene.path)
    scene.file.close()


def test_a_spare_that_is_killed_is_followed_by_another_and_a_watchdog_has_one(scene: Scene) -> None:
    first = scene.spare
    os.kill(first, signal.SIGKILL)
    until(lambda: scene.spare not in (0, first), "another spare")
    second = scene.spare
    scene.kill()
    assert scene.spare == second, "it waits for the end of the lease"
    scene.start()
    third = scene.spare
    assert third not in (first, second), "a watchdog that follows ends the spare of the one before"
    told = scene.file.watched()
    assert told
    assert told.fenced == 0
    assert not scene.fenced.exists(), "nothing was fenced"
    assert Path(f"/proc/{third}/comm").read_text() == "buntime-spare\n"
    assert Path(f"/proc/{third}/stat").read_text().split()[5] == str(third), "a session of its own"


def test_a_spare_whose_watchdog_has_no_follower_fences_when_the_lease_is_over_and_goes(scene: Scene) -> None:
    left = scene.spare
    scene.lease(SOON)
    scene.kill()
    until(lambda: scene.spare == 0, "the end of the spare")
    told = scene.file.watched()
    assert told
    assert (told.incarnation, told.fenced, told.pid) == (0, 1, left)
    assert boot_seconds() >= scene.file.shown().until  # type: ignore[union-attr]


def test_a_renewal_moves_the_end_for_a_spare_too(scene: Scene) -> None:
    scene.lease(SOON)
    scene.kill()
    scene.lease(LATER)
    with pytest.raises(AssertionError):
        until(lambda: scene.spare == 0, "its end", 2 * SOON)


def test_a_watchdog_takes_the_place_of_a_spare_that_fences(scene: Scene) -> None:
    scene.cannot_freeze()
    scene.lease(SOON)
    scene.kill()
    until(lambda: scene.freezes, "the spare to fence")
    scene.lease(LATER, incarnation=2)
    scene.start()
    told = scene.file.watched()
    assert told
    assert (told.incarnation, told.fenced) == (2, 1)


@pytest.mark.parametrize("freezes", [False, True])
def test_no_spare_outlives_an_end_for_good_right_after_a_kill(scene: Scene, freezes: bool) -> None:
    if freezes:
        scene.cannot_freeze()
        scene.lease(0)
    scene.kill()
    end_watchdog(scene.path)
    assert scene.spare == 0
    assert not scene.path.exists()


def test_a_spare_that_starts_when_the_lease_file_has_gone_goes(scene: Scene) -> None:
    """Its watchdog was killed before it had begun."""
    scene.kill()
    scene.cannot_freeze()
    file = os.open(scene.path, os.O_RDWR)
    end_watchdog(scene.path)
    spare.take_over(file, str(scene.group))
    os.close(file)
    assert not scene.freezes


def test_a_watchdog_that_is_asked_to_end_leaves_no_spare(scene: Scene) -> None:
    scene.watchdog.terminate()
    scene.watchdog.wait()
    assert scene.spare == 0
    assert scene.fenced.exists()


def test_a_spare_is_small() -> None:
    """It imports nothing of buntime but the records of the lease file, and waits as long as the budget says."""
    code = f"import sys; sys.path.append({str(SOURCES)!r}); import buntime.fleet.spare; print(*sys.modules)"
    told = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    ours = {name for name in told.stdout.split() if name.startswith("buntime")}
    assert ours == {"buntime", "buntime.fleet", spare.__name__, lease_records.__name__}
    assert not {"dataclasses", "pathlib", "typing", "subprocess"} & set(told.stdout.split())
    assert BUDGET.freeze == spare.FREEZE_SECONDS
