"""Ending the cgroup of a run, on the real kernel with its version of cgroups."""

import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from buntime.sandboxes.kernel.cgroup import Cgroups
from buntime.sandboxes.kernel.cgroup_version import find_cgroups
from tests.waiting import until

pytestmark = pytest.mark.sandbox

SANDBOX = "one"
ROUNDS = 300  # about every second round hits the race


@pytest.fixture
def cgroups() -> Iterator[Cgroups]:
    cgroups = find_cgroups("tends")
    cgroups.create(SANDBOX, None)
    yield cgroups
    assert cgroups.remove(SANDBOX)
    cgroups.remove_root()


def test_a_run_that_two_threads_end_at_once_is_ended_for_both(cgroups: Cgroups) -> None:
    together = Barrier(2)

    def end(run: str) -> bool:
        together.wait()
        ended = cgroups.kill_run(SANDBOX, run)
        cgroups.remove_run(SANDBOX, run)
        return ended

    with ThreadPoolExecutor(2) as pool:
        for number in range(ROUNDS):
            run = f"run{number}"
            cgroups.add_run(SANDBOX, run)
            assert list(pool.map(end, [run, run])) == [True, True]
    assert cgroups.runs(SANDBOX) == []


def test_no_program_of_a_run_goes_on_because_its_child_was_killed_first(
    cgroups: Cgroups, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine, time passes between the signals to the members of a group."""
    send = signal.pidfd_send_signal

    def send_and_pause(handle: int, number: int) -> None:
        send(handle, number)
        time.sleep(0.02)

    survived = tmp_path / "survived"
    for number in range(24):  # so that in some rounds the child is signalled first
        run = f"run{number}"
        cgroups.add_run(SANDBOX, run)
        shell = subprocess.Popen(["sh", "-c", f"read _; sleep 600; exec touch {survived}"], stdin=subprocess.PIPE)
        cgroups.join_run(SANDBOX, run, shell.pid)
        assert shell.stdin
        shell.stdin.write(b"\n")
        shell.stdin.flush()
        children = Path(f"/proc/{shell.pid}/task/{shell.pid}/children")
        until(children.read_text, "the child to start")
        with monkeypatch.context() as patched:
            patched.setattr(signal, "pidfd_send_signal", send_and_pause)
            assert cgroups.kill_run(SANDBOX, run)
        shell.stdin.close()
        assert shell.wait() == -signal.SIGKILL
        assert cgroups.remove_run(SANDBOX, run)
    assert not survived.exists()
