"""A server that starts goes first, and nothing that it starts does."""

import os
import subprocess
import sys
import threading
from collections.abc import Sequence

import pytest

from buntime.daemon.haste import AUTOGROUP, FIRST, end_haste, make_haste

OWN_SESSION = """
import os
os.setpriority(os.PRIO_PROCESS, 0, 0)
from buntime.daemon.haste import AUTOGROUP, end_haste, make_haste
print(AUTOGROUP.read_text().strip())
make_haste()
print(AUTOGROUP.read_text().strip())
end_haste()
print(AUTOGROUP.read_text().strip())
"""
NICENESS = "import os; print(os.getpriority(os.PRIO_PROCESS, 0))"


def niceness() -> Sequence[int]:
    """Of this thread, of a thread that it starts, and of a program."""
    of_thread: list[int] = []
    thread = threading.Thread(target=lambda: of_thread.append(os.getpriority(os.PRIO_PROCESS, 0)))
    thread.start()
    thread.join()
    program = subprocess.run([sys.executable, "-c", NICENESS], stdout=subprocess.PIPE, check=True)
    return os.getpriority(os.PRIO_PROCESS, 0), *of_thread, int(program.stdout)


def in_thread(seen: list[Sequence[int]], start: int) -> None:
    os.setpriority(os.PRIO_PROCESS, 0, start)
    make_haste()
    seen.append(niceness())
    end_haste()
    seen.append(niceness())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may go first")
@pytest.mark.parametrize(("start", "first"), [(0, FIRST), (5, 5), (FIRST, FIRST)])
def test_only_the_thread_that_starts_goes_first_and_only_until_it_has(start: int, first: int) -> None:
    seen: list[Sequence[int]] = []
    thread = threading.Thread(target=in_thread, args=(seen, start))
    thread.start()
    thread.join()
    assert seen == [(first, start, start), (start, start, start)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may go first")
def test_a_policy_that_the_operator_has_chosen_stays() -> None:
    seen: list[tuple[int, int]] = []

    def look() -> None:
        os.setpriority(os.PRIO_PROCESS, 0, 0)
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        for step in (make_haste, end_haste):
            step()
            seen.append((os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [(os.SCHED_BATCH, 0)] * 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may go first")
@pytest.mark.skipif(not AUTOGROUP.exists(), reason="this kernel does not weigh sessions of processes")
@pytest.mark.parametrize("leads", [True, False])
def test_a_session_of_processes_goes_first_if_it_is_the_servers_own(leads: bool) -> None:
    program = subprocess.run(
        [sys.executable, "-c", OWN_SESSION], stdout=subprocess.PIPE, text=True, check=True, start_new_session=leads
    )
    before, during, after = program.stdout.splitlines()
    assert (before, during != before, after) == (after, leads, before)


def test_a_host_that_does_not_allow_it_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "setpriority", refused)
    monkeypatch.setattr(os, "sched_setscheduler", refused)
    make_haste()
    end_haste()
