from collections import Counter
from pathlib import Path

from buntime.sandboxes.kernel.cgroup_v1 import CgroupsV1
from buntime.sandboxes.kernel.cgroup_v2 import CgroupsV2
from buntime.sandboxes.kernel.uncounted import Held, Pace, Severity, sockets_in
from buntime.sandboxes.kernel.uncounted_locks import locks_by_process
from buntime.sandboxes.kernel.watch import Watch

STEP = 100


def looked(number: int | None, ended: float = 0.0, *, took: float = 0.0, again: bool = False) -> Pace:
    pace = Pace(STEP)
    pace.looked(number, ended - took, ended, again=again)
    return pace


def test_the_first_look_is_due_at_once() -> None:
    assert Pace(STEP).is_due(5, 1.0)


def test_a_look_is_due_when_the_number_of_the_host_has_risen() -> None:
    pace = looked(1000)
    assert not pace.is_due(1100, 1.0)
    assert pace.is_due(1101, 1.0)


def test_a_rise_counts_from_the_lowest_number() -> None:
    pace = looked(1000)
    assert not pace.is_due(500, 1.0)
    assert pace.is_due(601, 1.0)


def test_a_look_is_seldom_due_without_a_rise_and_always_without_a_number() -> None:
    assert not looked(1000).is_due(1000, 9.9)
    assert looked(1000).is_due(1000, 10.0)
    assert looked(None).is_due(None, 0.1)


def test_looks_take_no_more_than_a_twentieth_of_the_time() -> None:
    pace = looked(0, took=0.5)
    assert not pace.is_due(10**6, 9.9)
    assert pace.is_due(10**6, 10.0)


def test_a_look_comes_soon_after_runs_are_ended() -> None:
    pace = looked(1000, again=True)
    assert not pace.is_due(1000, 0.9)
    assert pace.is_due(1000, 1.0)


def test_each_look_ends_more_until_the_count_falls() -> None:
    severity = Severity()
    assert [severity.next({"sb1": 9000}) for _ in range(4)] == [{"sb1": 1}, {"sb1": 2}, {"sb1": 3}, {"sb1": 3}]
    assert severity.next({}) == {}
    assert severity.next({"sb1": 9000}) == {"sb1": 1}
    assert severity.next({"sb1": 4500, "sb2": 9000}) == {"sb1": 1, "sb2": 1}


def test_the_runs_that_hold_more_than_an_equal_share_are_the_largest() -> None:
    assert Held(200, Counter(r1=10, r2=190)).largest(100) == ["r2"]
    assert Held(200, Counter(r1=60, r2=140)).largest(100) == ["r1", "r2"]
    assert Held(200).largest(100) == []


def test_locks_are_counted_by_process_without_waiters() -> None:
    lines = [
        "1: POSIX  ADVISORY  WRITE 7 fe:00:1 0 0",
        "2: FLOCK  ADVISORY  WRITE 7 fe:00:1 0 EOF",
        "2: -> FLOCK  ADVISORY  WRITE 8 fe:00:1 0 EOF",
        "3: LEASE  ACTIVE    READ  9 fe:00:1 0 EOF",
        "4: POSIX  ADVISORY  READ  8 fe:00:1 2 2",
        "5: POSIX  ADVIS",
    ]
    assert locks_by_process(lines) == {7: 2, 8: 1}


def test_sockets_are_in_the_first_line() -> None:
    assert sockets_in("sockets: used 19\nTCP: inuse 5 orphan 0 tw 4 alloc 5 mem 2\n") == 19


def test_the_cgroup_of_a_process_tells_its_sandbox_and_run(tmp_path: Path) -> None:
    v1, v2 = CgroupsV1(tmp_path, "buntime-abcd"), CgroupsV2(tmp_path / "buntime-abcd")
    old = "9:freezer:/buntime-abcd/sb1/guest\n8:pids:/buntime-abcd/sb1/runs/r7\n0::/buntime-abcd/sb1/guest\n"
    assert v1.place_of(old) == ("sb1", "r7")
    assert v1.place_of("8:pids:/buntime-abcd/sb1\n") == ("sb1", None)
    assert v2.place_of("0::/buntime-abcd/sb1/runs/r7\n") == ("sb1", "r7")
    assert v2.place_of("0::/buntime-abcd/sb1/guest\n") == ("sb1", None)
    for other in ("0::/buntime-abce/sb1/runs/r7\n", "0::/\n", ""):
        assert v2.place_of(other) == (None, None)


def test_the_watch_ends_the_largest_runs_then_all_and_then_the_sandbox(tmp_path: Path) -> None:
    cgroups = CgroupsV1(tmp_path, "buntime-abcd")
    runs, freezer = tmp_path / "pids/buntime-abcd/sb1/runs", tmp_path / "freezer/buntime-abcd/sb1"
    for directory in (runs / "r1", runs / "r2", freezer):
        directory.mkdir(parents=True)
    for run in ("r1", "r2"):
        (runs / run / "pids.max").write_text("max")
    state = freezer / "freezer.state"
    state.write_text("THAWED\n")
    held = Held(200, Counter(r1=10, r2=190))

    def looks() -> tuple[list[str], list[str]]:
        whole = watch.look(cgroups, None)
        ended = [run for run in ("r1", "r2") if (runs / run / "pids.max").read_text() != "max"]
        for run in ended:
            (runs / run / "pids.max").write_text("max")
        return ended, whole

    watch = Watch("things", 100, Pace(STEP), lambda: None, lambda _: {"sb1": held})
    assert [looks() for _ in range(3)] == [(["r2"], []), (["r1", "r2"], []), ([], ["sb1"])]
    watch = Watch("things", 100, Pace(STEP), lambda: None, lambda _: {"sb1": held})
    state.write_text("FROZEN\n")
    assert looks() == ([], ["sb1"]), "a frozen run does not end when it is killed"
