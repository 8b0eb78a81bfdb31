"""`buntime hosts`, run as processes: output and exit status."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from buntime.fleet.report import Report, Room, told
from buntime.session import State
from tests.contracts.postgres import emptied
from tests.contracts.test_fleet_commands import A, B, Fleet, some

pytestmark = pytest.mark.postgres

GB = 1 << 30
REPORT = Report(3, 2, 4, 1.5, Room(8 * GB, 2 * GB, 2 * GB), Room(10, 1), Room(10, 2), Room(10, 1))


class Shell:
    def __init__(self, url: str, data_dir: Path) -> None:
        self._environ = {"PATH": os.environ["PATH"], "BUNTIME_STORE": url, "BUNTIME_DATA_DIR": str(data_dir)}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "buntime_cli", "hosts", *words]
        return subprocess.run(command, env=self._environ, capture_output=True, stdin=subprocess.DEVNULL, text=True)

    def prints(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.removesuffix("\n")

    def refuses(self, *words: str) -> str:
        done = self.run(*words)
        assert (done.returncode, done.stdout) == (1, "")
        assert "Traceback" not in done.stderr
        return done.stderr


@pytest.fixture
async def fleet(postgres_url: str) -> Fleet:
    await emptied(postgres_url)
    fleet = Fleet(postgres_url)
    fleet.run("DELETE FROM hosts")
    return fleet


@pytest.fixture
def shell(fleet: Fleet, postgres_url: str, tmp_path: Path) -> Shell:
    return Shell(postgres_url, tmp_path)


def test_a_list_is_a_table_with_a_line_for_each_host(fleet: Fleet, shell: Shell) -> None:
    fleet.join(B)
    fleet.join(A, lease=-1)
    fleet.run("UPDATE hosts SET capacity = %s WHERE id = %s", (json.dumps(dict(told(REPORT))), B))
    fleet.add(A, some(1, state=State.ACTIVE, archived=False))
    fleet.add(A, some(2))
    fleet.add("", some(3))
    head, first, second, nobody = shell.prints("list").splitlines()
    assert head.split() == (
        ["ID", "STATE", "ACTIVE", "IDLE", "ASLEEP", "UNSAVED", "MEMORY", "DISK", "LOAD", "LEASE", "VERSION", "ADDRESS"]
    )
    assert first.split() == [A, "lost", "1", "0", "1", "0", "?", "?", "?", "0s", "1", "10.0.0.1:8443"]
    assert second.split()[:9] == [B, "active", "0", "0", "0", "0", "50%", "80%", "1.5/4"]
    assert re.fullmatch(r"\d+(\.\d)?s", second.split()[9])
    assert nobody.split() == ["nobody", "-", "0", "0", "1", "0", *"------"]


def test_a_list_for_programs_has_the_fields_of_the_api(fleet: Fleet, shell: Shell) -> None:
    fleet.join(A)
    fleet.run("UPDATE hosts SET capacity = %s", (json.dumps(dict(told(REPORT))),))
    fleet.add(A, some(1))
    fleet.add("", some(2, archived=False))
    listed = json.loads(shell.prints("list", "--json"))
    (host,) = listed["hosts"]
    assert listed["nobody"] == {"active": 0, "idle": 0, "deepSleep": 1, "unsaved": 1}
    assert host.keys() == {
        *("hostId", "state", "draining", "drainSecondsLeft", "address", "version", "joinedAt", "lease", "sessions"),
        "load",
    }
    assert host["sessions"] == {"active": 0, "idle": 0, "deepSleep": 1, "unsaved": 0}
    assert host["load"]["memory"] == {"total": 8 * GB, "used": 2 * GB, "reserved": 2 * GB}
    assert (host["lease"]["incarnation"], host["lease"]["renewals"]) == (3, 7)


def test_a_drain_says_how_many_sessions_are_left_and_how_to_undo_it(fleet: Fleet, shell: Shell) -> None:
    fleet.join(A)
    fleet.add(A, some(1))
    said = shell.prints("drain", A)
    assert said == f"{A} drains. 1 session left. Undo it with: buntime hosts resume {A}"
    assert shell.prints("list").splitlines()[1].split()[1] == "draining"
    assert json.loads(shell.prints("drain", A, "--within", "0", "--json")) == {
        **{"id": A, "draining": True},
        "sessions": 1,
    }
    assert shell.prints("resume", A) == f"{A} takes sessions."
    assert shell.prints("list").splitlines()[1].split()[1] == "active"


def test_a_drain_waits_for_the_last_session_if_it_is_asked_to(fleet: Fleet, shell: Shell) -> None:
    fleet.join(A)
    assert "0 sessions left" in shell.prints("drain", A, "--wait")
    fleet.add(A, some(1))
    fleet.run("UPDATE hosts SET lease_until = clock_timestamp()")
    assert f"{A} is lost, with 1 session left" in shell.refuses("drain", A, "--wait")


def test_a_drain_that_is_marked_shows_while_the_host_is_gone(fleet: Fleet, shell: Shell) -> None:
    fleet.join(A)
    shell.prints("drain", A)
    fleet.run("UPDATE hosts SET taken_over = true, has_left = true, lease_until = clock_timestamp()")
    assert shell.prints("list").splitlines()[1].split()[1] == "left,draining"


def test_a_host_that_runs_is_not_removed(fleet: Fleet, shell: Shell) -> None:
    fleet.join(A)
    assert "runs" in shell.refuses("remove", A)
    assert "runs" in shell.refuses("remove", A, "--give-up-sessions")


def test_a_host_that_alone_has_files_is_removed_only_with_them(fleet: Fleet, shell: Shell) -> None:
    fleet.join(A, lease=-1)
    fleet.add(A, some(1, state=State.ACTIVE, archived=False))
    fleet.add(A, some(2, archived=False))
    fleet.add(A, some(3))
    said = shell.refuses("remove", A)
    assert f"{A} has 2 sessions whose newest files are on it alone (1 active, 0 idle, 1 not archived)" in said
    assert f"buntime hosts remove {A} --give-up-sessions" in said
    said = shell.prints("remove", A, "--give-up-sessions")
    assert f"{A} is removed. 1 session can wake on any host." in said
    assert "2 sessions of it answer 503 with host_lost until their accounts recover them." in said
    assert json.loads(shell.prints("list", "--json")) == {
        "hosts": [],
        "nobody": {"active": 1, "idle": 0, "deepSleep": 2, "unsaved": 1},
    }


def test_a_removal_for_programs_says_what_follows(fleet: Fleet, shell: Shell) -> None:
    fleet.join(A, lease=-1)
    fleet.add(A, replace(some(3)))
    assert json.loads(shell.prints("remove", A, "--json")) == {
        **{"id": A, "removed": True},
        **{"freed": 1, "givenUp": 0},
    }


@pytest.mark.parametrize("words", [("drain",), ("resume",), ("remove",), ("drain", "--wait")])
def test_an_unknown_host_is_refused(shell: Shell, words: tuple[str, ...]) -> None:
    assert "There is no host hst_nobody. List hosts with: buntime hosts list" in shell.refuses(*words, "hst_nobody")
