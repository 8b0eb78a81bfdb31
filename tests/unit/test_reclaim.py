"""When a suspended sandbox is paged out, and what stops it. A small program stands in for the one that does it."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import cast

import pytest

from buntime.daemon.tasks import Tasks, cancel_and_wait
from buntime.plan import MB
from buntime.sandboxes.kernel import reclaim
from buntime.sandboxes.kernel.cgroup import Cgroups
from buntime.sandboxes.kernel.reclaim import PageOut, Reclaim

TITLES = "Filename\tType\tSize\tUsed\tPriority\n"


@pytest.fixture
def swaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replaces /proc/swaps with a file that lists some swap."""
    file = tmp_path / "swaps"
    file.write_text(f"{TITLES}/dev/zram0 partition 1000 0 10\n")
    monkeypatch.setattr(reclaim, "SWAPS", file)
    return file


class Kernel:
    """Fake cgroups with the parts that reclaiming uses."""

    def __init__(self, place: Path, *, counts_swap: bool = True) -> None:
        self._place = place
        self._counts_swap = counts_swap
        self.out = [0]  # bytes in swap, by turns; the last one stays
        self.called: list[str] = []

    def pages_at(self, sandbox: str) -> tuple[Path, Path]:
        return self._place, self._place

    def lend_swap(self, sandbox: str) -> bool:
        self.called.append("lend")
        return self._counts_swap

    def settle_swap(self, sandbox: str) -> int:
        self.called.append("settle")
        return self.out.pop(0) if len(self.out) > 1 else self.out[0]


@pytest.fixture(autouse=True)
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reclaim, "AFTER", 0.01)
    monkeypatch.setattr(reclaim, "SOON", 0.01)


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the shell command that stands in for the program's work. `$at` is the test's directory."""

    def use(command: str) -> None:
        lines = f"while IFS='\t' read -r at rest; do {command}; echo; done"
        monkeypatch.setattr(reclaim, "command", lambda: ["sh", "-c", lines])

    return use


@pytest.fixture
async def pages() -> AsyncIterator[PageOut]:
    async with Tasks() as tasks:
        program = PageOut(tasks)
        yield program
        program.close()


type Made = Callable[[Kernel, Tasks], Reclaim]


@pytest.fixture
def made(pages: PageOut) -> Made:
    return lambda kernel, tasks: Reclaim("sb1", cast("Cgroups", kernel), pages, tasks)


async def _until(seen: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not seen():  # noqa: ASYNC110 - a program changes it
            await asyncio.sleep(0.005)


@pytest.mark.usefixtures("swaps")
async def test_memory_is_taken_a_while_after_the_freeze(
    tmp_path: Path, program: Callable[[str], None], made: Made
) -> None:
    program('touch "$at/taken"')
    kernel = Kernel(tmp_path)
    async with Tasks() as tasks:
        made(kernel, tasks).frozen()
        assert not (tmp_path / "taken").exists()
        await _until((tmp_path / "taken").exists)
    assert kernel.called == ["lend", "settle"]


class Kept:
    """What a request has in its context."""


_kept: ContextVar[Kept] = ContextVar("kept")


async def test_a_suspended_sandbox_keeps_nothing_of_the_request_that_suspended_it(tmp_path: Path, made: Made) -> None:
    async with Tasks() as tasks:
        one = made(Kernel(tmp_path), tasks)

        async def request() -> weakref.ref[Kept]:
            _kept.set(kept := Kept())
            one.frozen()
            return weakref.ref(kept)

        left = await asyncio.create_task(request())
        await asyncio.sleep(0)  # until then, the loop has the request's task
        gc.collect()
        assert left() is None
        one.thawed()


@pytest.mark.usefixtures("swaps")
async def test_an_early_thaw_leaves_the_memory_alone(
    tmp_path: Path, program: Callable[[str], None], made: Made
) -> None:
    program('touch "$at/taken"')
    (tmp_path / "early").mkdir()
    async with Tasks() as tasks:
        one, other = made(Kernel(tmp_path / "early"), tasks), made(Kernel(tmp_path), tasks)
        one.frozen()
        one.thawed()
        other.frozen()
        await _until((tmp_path / "taken").exists)
    assert not (tmp_path / "early/taken").exists()


@pytest.mark.usefixtures("swaps")
async def test_a_thaw_stops_reclaiming_and_the_next_freeze_starts_again(
    tmp_path: Path, program: Callable[[str], None], made: Made
) -> None:
    program('echo >>"$at/begun"; exec sleep 1000')
    kernel = Kernel(tmp_path)
    async with Tasks() as tasks:
        memory = made(kernel, tasks)
        for count in (1, 2):
            memory.frozen()
            await _until(partial(_has_lines, tmp_path / "begun", count))
            memory.thawed()
    # the end of the tasks waited for both runs, so both programs have ended
    assert kernel.called == ["lend", "settle"] * 2


async def test_without_swap_nothing_is_reclaimed(
    tmp_path: Path, swaps: Path, program: Callable[[str], None], made: Made
) -> None:
    program('touch "$at/taken"')
    async with Tasks() as tasks:
        swaps.write_text(TITLES)
        kernel = Kernel(tmp_path)
        memory = made(kernel, tasks)
        memory.frozen()
        await asyncio.sleep(0.1)
        assert kernel.called == []
        swaps.write_text(f"{TITLES}/swapfile file 1000 0 -2\n")
        memory.frozen()
        await _until((tmp_path / "taken").exists)


@pytest.mark.usefixtures("swaps")
async def test_nothing_goes_to_swap_that_the_kernel_does_not_count(
    tmp_path: Path, program: Callable[[str], None], made: Made
) -> None:
    program('touch "$at/taken"')
    kernel = Kernel(tmp_path, counts_swap=False)
    async with Tasks() as tasks:
        made(kernel, tasks).frozen()
        await _until(lambda: kernel.called)
    assert not (tmp_path / "taken").exists()


@pytest.mark.usefixtures("swaps")
async def test_a_woken_session_gets_its_limit_back_as_its_pages_come_back(
    tmp_path: Path, program: Callable[[str], None], made: Made
) -> None:
    program("true")
    kernel = Kernel(tmp_path)
    kernel.out = [100 * MB, 50 * MB, 50 * MB, reclaim.LITTLE]
    async with Tasks() as tasks:
        memory = made(kernel, tasks)
        memory.frozen()
        await _until(lambda: len(kernel.out) == 3)
        memory.thawed()
        await _until(lambda: len(kernel.out) == 1)
        await asyncio.sleep(0.1)
    assert kernel.called == ["lend", *["settle"] * 4]


async def _paged_out(pages: PageOut, place: Path) -> None:
    async with asyncio.timeout(30), pages.turn:
        await pages.run([place, place], lambda: True)


async def test_one_program_pages_out_all_sandboxes(
    tmp_path: Path, program: Callable[[str], None], pages: PageOut
) -> None:
    program('echo $$ >>"$at/pids"')
    for _ in range(3):
        await _paged_out(pages, tmp_path)
    assert len({*(tmp_path / "pids").read_text().split()}) == 1


@pytest.mark.parametrize("end", ["exit 1", "kill -9 $$"])
async def test_another_program_follows_one_that_ended(
    end: str, tmp_path: Path, program: Callable[[str], None], pages: PageOut
) -> None:
    program(f'echo $$ >>"$at/pids"; test -e "$at/ended" || {{ touch "$at/ended"; {end}; }}')
    for _ in range(3):
        await _paged_out(pages, tmp_path)
    first, *others = (tmp_path / "pids").read_text().split()
    assert len(others) == 2
    assert {*others} == {others[0]} != {first}


async def test_a_run_that_is_cut_off_leaves_no_answer_for_the_next_one(
    tmp_path: Path, program: Callable[[str], None], pages: PageOut
) -> None:
    program('echo >>"$at/begun"; test -e "$at/fast" || sleep 0.2; echo >>"$at/done"')
    run = asyncio.create_task(_paged_out(pages, tmp_path))
    await _until((tmp_path / "begun").exists)
    await cancel_and_wait(run)
    (tmp_path / "fast").touch()
    await _paged_out(pages, tmp_path)
    assert _has_lines(tmp_path / "done", 1)


async def test_the_program_ends_when_it_has_nothing_to_do(
    tmp_path: Path, program: Callable[[str], None], pages: PageOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reclaim, "STAYS", 0.05)
    program('echo $$ >"$at/pid"; sleep 0.2')  # longer than it stays
    await _paged_out(pages, tmp_path)
    pid = (tmp_path / "pid").read_text().strip()
    await _until(lambda: not Path("/proc", pid).exists())


@pytest.mark.usefixtures("swaps")
async def test_nothing_is_paged_out_once_the_server_stops(
    tmp_path: Path, program: Callable[[str], None], pages: PageOut, made: Made
) -> None:
    program('touch "$at/taken"')
    kernel = Kernel(tmp_path)
    async with Tasks() as tasks:
        await pages.turn.acquire()
        made(kernel, tasks).frozen()
        await asyncio.sleep(0.1)
        pages.close()
        pages.turn.release()
    assert kernel.called == []
    assert not (tmp_path / "taken").exists()


def _has_lines(file: Path, count: int) -> bool:
    return file.exists() and len(file.read_text().splitlines()) == count
