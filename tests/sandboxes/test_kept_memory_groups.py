"""The memory cgroup of an ended run, which the next run takes over: on the real kernel, with cgroups v1."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from buntime.plan import MB
from buntime.sandboxes.kernel.cgroup import Cgroups
from buntime.sandboxes.kernel.cgroup_tree import children_of
from buntime.sandboxes.kernel.cgroup_v1 import KEPT, KEPT_BYTES, CgroupsV1
from buntime.sandboxes.kernel.cgroup_version import find_cgroups

SANDBOX, NAME = "one", "buntime-tkept"
RUNS = Path("/sys/fs/cgroup/memory") / NAME / SANDBOX / "runs"
# reads a line, so that its memory counts in the group that it is moved into
USE = """
import sys
sys.stdin.readline()
held = b"x" * int(sys.argv[1])
open(sys.argv[2], "wb").write(held[: int(sys.argv[3])])
"""

pytestmark = [
    pytest.mark.sandbox,
    pytest.mark.skipif(not isinstance(find_cgroups("tkept"), CgroupsV1), reason="cgroups v2 has no rename"),
]


@pytest.fixture
def cgroups() -> Iterator[Cgroups]:
    cgroups = find_cgroups("tkept")
    cgroups.create(SANDBOX, None)
    _run(cgroups, "warm", MB)  # the files of the program count for the first one that reads them
    assert cgroups.remove_run(SANDBOX, "warm")
    yield cgroups
    assert cgroups.remove(SANDBOX)
    cgroups.remove_root()


def _run(cgroups: Cgroups, run: str, use: int, file: Path = Path("/dev/null"), written: int = 0) -> None:
    """Runs a program that uses so much memory and writes so much of it to a file, in bytes, to its end."""
    cgroups.add_run(SANDBOX, run)
    with subprocess.Popen([sys.executable, "-c", USE, str(use), file, str(written)], stdin=subprocess.PIPE) as program:
        cgroups.join_run(SANDBOX, run, program.pid)
        cgroups.count_memory(SANDBOX, run, program.pid)
        program.communicate(b"\n")
    assert program.returncode == 0


def _number(run: str) -> int:
    """The kernel's number of the group, which stays when it is renamed."""
    return (RUNS / run).stat().st_ino


def test_the_next_run_takes_over_the_group_with_a_peak_of_its_own(cgroups: Cgroups) -> None:
    _run(cgroups, "r1", 40 * MB)
    assert cgroups.usage(SANDBOX, "r1").peak_memory > 40 * MB
    number = _number("r1")
    assert cgroups.remove_run(SANDBOX, "r1", keep=True)
    assert children_of(RUNS) == [KEPT]
    _run(cgroups, "r2", 10 * MB)
    assert _number("r2") == number
    assert 10 * MB < cgroups.usage(SANDBOX, "r2").peak_memory < 20 * MB + KEPT_BYTES
    assert children_of(RUNS) == ["r2"]


def test_a_group_that_holds_much_is_not_kept(cgroups: Cgroups, tmp_path: Path) -> None:
    _run(cgroups, "r1", 8 * MB, tmp_path / "file", 8 * MB)  # its pages stay in memory
    assert cgroups.remove_run(SANDBOX, "r1", keep=True)
    assert children_of(RUNS) == []


def test_a_group_in_which_the_kernel_has_killed_is_not_kept(cgroups: Cgroups) -> None:
    (RUNS / "memory.limit_in_bytes").write_text(str(24 * MB))
    if (with_swap := RUNS / "memory.memsw.limit_in_bytes").exists():
        with_swap.write_text(str(24 * MB))
    with pytest.raises(AssertionError):
        _run(cgroups, "r1", 64 * MB)
    assert cgroups.usage(SANDBOX, "r1").memory_kills > 0
    assert cgroups.remove_run(SANDBOX, "r1", keep=True)
    assert children_of(RUNS) == []
    _run(cgroups, "r2", MB)
    assert cgroups.usage(SANDBOX, "r2").memory_kills == 0


def test_a_group_in_which_a_process_lives_is_not_kept(cgroups: Cgroups) -> None:
    cgroups.add_run(SANDBOX, "r1")
    with subprocess.Popen(["sleep", "600"]) as program:
        cgroups.join_run(SANDBOX, "r1", program.pid)
        cgroups.count_memory(SANDBOX, "r1", program.pid)
        assert not cgroups.remove_run(SANDBOX, "r1", keep=True)
        assert children_of(RUNS) == ["r1"]
        program.kill()


def test_no_group_is_kept_beside_two_that_wait_and_none_after_it_is_dropped(cgroups: Cgroups) -> None:
    for run in ("r1", "r2", "r3"):
        _run(cgroups, run, MB)
    assert cgroups.remove_run(SANDBOX, "r1", keep=True)
    assert sorted(children_of(RUNS)) == ["r2", "r3"]
    assert cgroups.remove_run(SANDBOX, "r2", keep=True)
    assert sorted(children_of(RUNS)) == [KEPT, "r3"]
    assert cgroups.remove_run(SANDBOX, "r3", keep=True), "one is kept already"
    assert children_of(RUNS) == [KEPT]
    cgroups.drop_kept(SANDBOX)
    cgroups.drop_kept(SANDBOX)
    assert children_of(RUNS) == []


def test_what_a_killed_server_left_is_not_taken_for_a_new_run(cgroups: Cgroups) -> None:
    _run(cgroups, "r1", 40 * MB)
    for controller in CgroupsV1.PER_RUN:
        (Path("/sys/fs/cgroup") / controller / NAME / SANDBOX / "runs/r1").rmdir()
    _run(cgroups, "r1", MB)
    assert cgroups.usage(SANDBOX, "r1").peak_memory < 40 * MB
