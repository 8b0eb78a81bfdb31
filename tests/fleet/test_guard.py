"""The server keeps a watchdog running, on its own event loop, and leaves it behind."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from buntime.fleet.boot_clock import boot_seconds
from buntime.fleet.guard import STOPPED, Guard
from buntime.fleet.lease_file import LeaseFile, Shown
from buntime.fleet.watchdog import end_watchdog
from tests.waiting import eventually

WATCHDOG = """
import sys
from pathlib import Path
from buntime.fleet.watchdog import watch

class Fence:
    def close(self):
        Path(sys.argv[2]).touch()

watch(Path(sys.argv[1]), Fence(), Path(sys.argv[3]))
"""


class Scene:
    def __init__(self, directory: Path) -> None:
        self.fenced, self.group = directory / "fenced", directory / "group"
        self.path = directory / "lease"
        self.file = LeaseFile(self.path)
        self.command = (sys.executable, "-c", WATCHDOG, str(directory / "lease"), str(self.fenced), str(self.group))
        self.guard = Guard(self.command, self.file)
        self.file.show(Shown(1, boot_seconds() + 600))

    def another(self) -> subprocess.Popen[bytes]:
        """A watchdog that no guard has started."""
        return subprocess.Popen(self.command)

    @property
    def pid(self) -> int:
        told = self.file.watched()
        return told.pid if told else 0


def _killed(pid: int) -> bool:
    return os.waitpid(pid, 0)[1] == signal.SIGKILL


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(scene.pid, signal.SIGKILL)
        os.waitpid(scene.pid, 0)
    end_watchdog(scene.path)
    scene.file.close()


async def test_a_watchdog_that_ends_is_followed_by_another(scene: Scene) -> None:
    guarding = asyncio.create_task(scene.guard.run())
    await eventually(lambda: scene.guard.watches(1), "a watchdog")
    first = scene.pid
    os.kill(first, signal.SIGKILL)
    await eventually(lambda: scene.guard.watches(1) and scene.pid != first, "another watchdog")
    guarding.cancel()
    await asyncio.wait({guarding})
    os.kill(scene.pid, 0)  # the last one stays, without a server


async def test_a_watchdog_that_something_else_runs_is_found_and_so_is_the_next_one(scene: Scene) -> None:
    guard = Guard((), scene.file)
    guarding = asyncio.create_task(guard.run())
    await asyncio.sleep(0)
    assert not guard.watches(1)
    with scene.another() as first:
        await eventually(lambda: guard.watches(1), "the watchdog")
        first.kill()
    await eventually(lambda: not guard.watches(1), "its end, at once")
    told = scene.file.watched()
    assert told
    assert boot_seconds() - told.at < STOPPED, "its end was seen, and not its silence"
    with scene.another() as second:
        await eventually(lambda: guard.watches(1), "the next one")
        guarding.cancel()
        await asyncio.wait({guarding})
        assert second.poll() is None
        second.kill()


async def test_a_watchdog_takes_the_place_of_one_that_was_left_or_stopped(scene: Scene) -> None:
    first = asyncio.create_task(scene.guard.run())
    await eventually(lambda: scene.guard.watches(1), "a watchdog")
    left = scene.pid
    first.cancel()
    await asyncio.wait({first})
    os.kill(left, signal.SIGSTOP)
    second = asyncio.create_task(scene.guard.run())
    await eventually(lambda: scene.guard.watches(1) and scene.pid != left, "another watchdog")
    assert _killed(left)
    assert not scene.fenced.exists(), "nothing is fenced by a change of watchdogs"
    second.cancel()
    await asyncio.wait({second})


async def test_a_stopped_watchdog_counts_as_none(scene: Scene) -> None:
    guarding = asyncio.create_task(scene.guard.run())
    await eventually(lambda: scene.guard.watches(1), "a watchdog")
    os.kill(scene.pid, signal.SIGSTOP)
    await eventually(lambda: not scene.guard.watches(1), "the end of its looks")
    told = scene.file.watched()
    assert told
    assert boot_seconds() - told.at >= STOPPED
    guarding.cancel()
    await asyncio.wait({guarding})


async def test_a_watchdog_that_is_asked_to_end_fences_first(scene: Scene) -> None:
    guarding = asyncio.create_task(scene.guard.run())
    await eventually(lambda: scene.guard.watches(1), "a watchdog")
    assert not scene.fenced.exists()
    first = scene.pid
    os.kill(first, signal.SIGTERM)
    await eventually(lambda: scene.guard.has_fenced(1) and scene.pid != first, "another watchdog")
    assert scene.fenced.exists()
    scene.file.show(Shown(2, boot_seconds() + 600))
    await eventually(lambda: scene.guard.watches(2), "a host that has joined anew is watched")
    guarding.cancel()
    await asyncio.wait({guarding})
