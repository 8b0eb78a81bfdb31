"""Which run hit the process limit, on files that stand in for the kernel's. cgroup v1 and v2 count differently."""

from pathlib import Path

import pytest

from buntime.sandboxes.kernel.cgroup import FEW_PIDS, MANY_PIDS, ONE_RUN_PIDS, RUN_PIDS, Cgroups
from buntime.sandboxes.kernel.cgroup_v1 import CgroupsV1
from buntime.sandboxes.kernel.cgroup_v2 import CgroupsV2
from buntime.sandboxes.kernel.process_limit import ProcessLimit


class PidsFiles:
    """The pids files of a session with one run."""

    def __init__(self, cgroups: Cgroups, runs: Path) -> None:
        self.cgroups = cgroups
        self.runs = runs
        cgroups.create("sb1", None)
        (runs / "r1").mkdir()
        (runs / "r1/pids.max").touch()  # in a real group, the kernel has made it
        cgroups.add_run("sb1", "r1")
        self.set_refused(run=0, session=0)
        self.set_current(run=1, session=1)

    def set_refused(self, *, run: int, session: int) -> None:
        """Sets the numbers of refused forks."""
        (self.runs / "r1/pids.events").write_text(f"max {run}\n")
        (self.runs / "pids.events").write_text(f"max {run + session}\n")
        (self.runs / "pids.events.local").write_text(f"max {session}\n")

    def set_current(self, *, run: int, session: int) -> None:
        (self.runs / "r1/pids.current").write_text(f"{run}\n")
        (self.runs / "pids.current").write_text(f"{session}\n")

    def limit(self, *, used: bool = False) -> ProcessLimit:
        return ProcessLimit(self.cgroups, "sb1", "r1", used=used)


@pytest.fixture
def v1(tmp_path: Path) -> PidsFiles:
    return PidsFiles(CgroupsV1(tmp_path, "buntime-abcd"), tmp_path / "pids/buntime-abcd/sb1/runs")


@pytest.fixture
def v2(tmp_path: Path) -> PidsFiles:
    root = tmp_path / "buntime-abcd"
    root.mkdir()
    return PidsFiles(CgroupsV2(root), root / "sb1/runs")


@pytest.fixture(params=["v1", "v2"])
def pids(request: pytest.FixtureRequest) -> PidsFiles:
    found: PidsFiles = request.getfixturevalue(request.param)
    return found


def test_a_run_has_fewer_processes_than_its_session(pids: PidsFiles) -> None:
    assert (pids.runs / "r1/pids.max").read_text() == str(ONE_RUN_PIDS)
    assert (pids.runs / "pids.max").read_text() == str(RUN_PIDS)
    assert ONE_RUN_PIDS < RUN_PIDS


def test_a_run_with_a_refused_fork_met_the_limit(pids: PidsFiles) -> None:
    limit = pids.limit()
    assert not limit.is_met()
    pids.set_refused(run=1, session=0)
    assert limit.is_met()


def test_forks_refused_before_the_watch_do_not_count(pids: PidsFiles) -> None:
    pids.set_refused(run=3, session=3)
    limit = pids.limit(used=True)
    assert not limit.is_met()
    pids.set_refused(run=4, session=3)
    assert limit.is_met()


def test_forks_refused_by_the_servers_own_kill_do_not_count(pids: PidsFiles) -> None:
    limit = pids.limit()
    limit.settle()
    pids.set_refused(run=9, session=9)
    assert not limit.is_met()


def test_a_limit_that_was_met_before_a_kill_stays_met(pids: PidsFiles) -> None:
    limit = pids.limit()
    pids.set_refused(run=1, session=0)
    limit.settle()
    assert limit.is_met()


def test_a_run_without_a_group_met_no_limit(pids: PidsFiles) -> None:
    limit = pids.limit()
    (pids.runs / "r1/pids.events").unlink()
    assert not limit.is_met()


def test_v2_blames_a_run_with_many_processes_for_the_sessions_limit(v2: PidsFiles) -> None:
    limit = v2.limit()
    v2.set_current(run=MANY_PIDS, session=MANY_PIDS)
    assert not limit.is_met(), "nothing was refused"
    v2.set_refused(run=0, session=1)
    assert limit.is_met()


def test_v2_does_not_blame_a_run_with_few_processes(v2: PidsFiles) -> None:
    limit = v2.limit()
    v2.set_refused(run=0, session=1)
    v2.set_current(run=MANY_PIDS - 1, session=RUN_PIDS - FEW_PIDS)
    assert not limit.is_met()


def test_v2_blames_a_run_while_its_session_is_still_full(v2: PidsFiles) -> None:
    limit = v2.limit()
    v2.set_refused(run=0, session=1)
    v2.set_current(run=5, session=RUN_PIDS)
    assert limit.is_met()


def test_v2_does_not_count_the_sessions_earlier_refused_forks(v2: PidsFiles) -> None:
    v2.set_refused(run=0, session=7)
    v2.set_current(run=MANY_PIDS, session=RUN_PIDS)
    assert not v2.limit().is_met()


def test_v2_does_not_blame_a_run_for_another_runs_limit(v2: PidsFiles) -> None:
    limit = v2.limit()
    v2.set_current(run=MANY_PIDS, session=RUN_PIDS)
    (v2.runs / "pids.events").write_text("max 1\n")
    assert not limit.is_met()


def test_v2_before_linux_6_11_counts_only_at_the_run(v2: PidsFiles) -> None:
    (v2.runs / "pids.events.local").unlink()
    v2.set_current(run=MANY_PIDS, session=RUN_PIDS)
    limit = v2.limit()
    assert not limit.is_met()
    (v2.runs / "r1/pids.events").write_text("max 1\n")
    assert limit.is_met()


def test_v1_counts_only_at_the_run(v1: PidsFiles) -> None:
    limit = v1.limit()
    v1.set_refused(run=0, session=5)
    v1.set_current(run=MANY_PIDS, session=RUN_PIDS)
    assert not limit.is_met()
