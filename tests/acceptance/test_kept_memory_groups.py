"""What a session sees of memory cgroups that a later run takes over, and when none is left."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from buntime.sandboxes.kernel.cgroup_v1 import KEPT
from tests.acceptance import traces
from tests.acceptance.client import Client, Session
from tests.acceptance.server import Server
from tests.acceptance.sleeping import ask_to_sleep
from tests.waiting import until

pytestmark = pytest.mark.sandbox

MB = 1 << 20
ON_V2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
USE = "Buffer.alloc({}e6, 1).length"  # MB
RUNS = 12
QUIET_SECONDS = 0.5


@pytest.fixture
def session(paid: Client) -> Iterator[Session]:
    session = paid.open(resourceLimits={"memory": 512})
    yield session
    session.delete().done()


def _groups(server: Server, session: Session) -> Path:
    """The memory cgroup of all runs, in which each run has one."""
    sandbox = traces.sandbox_of(server.config, session.id)
    return Path("/sys/fs/cgroup/memory") / f"buntime-{server.config.instance}" / sandbox / "runs"


def _stays(kept: Path) -> bool:
    """Whether no process that is parked takes the group: then nothing is parked after the last run."""
    kept.mkdir(exist_ok=True)
    time.sleep(QUIET_SECONDS)
    return kept.exists()


def test_each_run_tells_its_own_peak(session: Session) -> None:
    plain = int(session.command("true")["memoryUsed"])
    for _ in range(RUNS // 4):
        assert int(session.code(USE.format(150))["memoryUsed"]) > 150 * MB * 0.9
        assert int(session.code("1")["memoryUsed"]) < 100 * MB
        assert int(session.command("true")["memoryUsed"]) < plain + 8 * MB


def test_the_memory_of_a_killed_run_is_not_told_of_the_next(session: Session) -> None:
    session.execute(code=USE.format(900)).refused(507, "memory_limit_exceeded")
    for _ in range(RUNS // 4):
        assert session.code("1")["exitCode"] == 0
        assert session.command("exit 137")["exitCode"] == 137


@pytest.mark.skipif(ON_V2, reason="needs cgroup v1: the kernel renames no group of v2")
def test_runs_one_after_the_other_take_over_groups(server: Server, session: Session) -> None:
    seen = set[int]()
    for number in range(RUNS):
        session.code(str(number))
        time.sleep(QUIET_SECONDS / 2)  # until the next process is parked
        seen |= {group.stat().st_ino for group in _groups(server, session).iterdir() if group.is_dir()}
    assert len(seen) <= RUNS // 2, "most runs had a new one"


@pytest.mark.skipif(ON_V2, reason="needs cgroup v1: the kernel renames no group of v2")
def test_a_suspended_session_keeps_no_group_for_a_next_run(server: Server, session: Session) -> None:
    session.code("1")
    kept = _groups(server, session) / KEPT
    until(lambda: _stays(kept), "all processes to be parked")
    ask_to_sleep(session, "idle").done()
    assert not kept.exists()
    assert session.code("1")["exitCode"] == 0
