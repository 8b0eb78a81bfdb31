"""Two threads end the cgroup of a run at the same time, on the real kernel with its version of cgroups."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from buntime.sandboxes.kernel.cgroup import Cgroups
from buntime.sandboxes.kernel.cgroup_version import find_cgroups

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
