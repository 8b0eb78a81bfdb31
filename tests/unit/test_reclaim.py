"""When the memory of a suspended sandbox is reclaimed, and what stops it. A small program stands in for the kernel."""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from buntime.daemon.tasks import Tasks
from buntime.sandboxes.kernel import reclaim
from buntime.sandboxes.kernel.reclaim import Reclaim

TITLES = "Filename\tType\tSize\tUsed\tPriority\n"


@pytest.fixture
def swaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replaces /proc/swaps with a file that lists some swap."""
    file = tmp_path / "swaps"
    file.write_text(f"{TITLES}/dev/zram0 partition 1000 0 10\n")
    monkeypatch.setattr(reclaim, "SWAPS", file)
    return file


def _made(command: str, tmp_path: Path, tasks: Tasks) -> Reclaim:
    return Reclaim(["sh", "-c", command, str(tmp_path)], asyncio.Semaphore(1), tasks, after=0.01)


async def _until(seen: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not seen():  # noqa: ASYNC110 - a program changes it
            await asyncio.sleep(0.005)


@pytest.mark.usefixtures("swaps")
async def test_memory_is_taken_a_while_after_the_freeze(tmp_path: Path) -> None:
    async with Tasks() as tasks:
        _made('touch "$0/taken"', tmp_path, tasks).frozen()
        assert not (tmp_path / "taken").exists()
        await _until((tmp_path / "taken").exists)


@pytest.mark.usefixtures("swaps")
async def test_an_early_thaw_leaves_the_memory_alone(tmp_path: Path) -> None:
    async with Tasks() as tasks:
        one, other = (_made(f'touch "$0/{name}"', tmp_path, tasks) for name in ("one", "other"))
        one.frozen()
        one.thawed()
        other.frozen()
        await _until((tmp_path / "other").exists)
    assert not (tmp_path / "one").exists()


@pytest.mark.usefixtures("swaps")
async def test_a_thaw_stops_reclaiming_and_the_next_freeze_starts_again(tmp_path: Path) -> None:
    async with Tasks() as tasks:
        memory = _made('echo >>"$0/begun"; exec sleep 1000', tmp_path, tasks)
        for count in (1, 2):
            memory.frozen()
            await _until(partial(_has_lines, tmp_path / "begun", count))
            memory.thawed()
    # the end of the tasks waited for both programs, so both have ended


async def test_without_swap_nothing_is_reclaimed(tmp_path: Path, swaps: Path) -> None:
    async with Tasks() as tasks:
        swaps.write_text(TITLES)
        _made('touch "$0/in vain"', tmp_path, tasks).frozen()
        await asyncio.sleep(0.1)
        swaps.write_text(f"{TITLES}/swapfile file 1000 0 -2\n")
        _made('touch "$0/taken"', tmp_path, tasks).frozen()
        await _until((tmp_path / "taken").exists)
    assert not (tmp_path / "in vain").exists()


def _has_lines(file: Path, count: int) -> bool:
    return file.exists() and len(file.read_text().splitlines()) == count
