"""Histories made by hand: sound ones, and for each rule one that breaks it. So the checker can fail."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.fleet.history.judging import unanswered, violations
from tests.fleet.history.operations import (
    FOR_GOOD,
    GAVE_UP,
    Both,
    Happened,
    History,
    Kind,
    Operation,
    Outcome,
    Run,
    TakenOver,
    load,
    outcome_of,
    save,
)

S, CHILD, SNAPSHOT = "ses_1", "ses_2", "snp_1"
PLACE, OTHER_PLACE = "10.213.0.1", "10.213.16.1"


def create(session: str = S, key: str = "k1", at: float = 0.0, snapshot: str = "") -> Operation:
    return Operation(Kind.CREATE, "f1", at, at + 0.5, Outcome.OK, session, key, snapshot=snapshot)


def execute(
    line: str, at: float, lines: str, *, session: str = S, place: str = PLACE, seconds: float = 0.1, final: bool = False
) -> Operation:
    """`lines`: what it saw, a letter for each."""
    run = Run(at + 0.1, at + 0.1 + seconds, place, tuple(lines))
    return Operation(Kind.EXECUTE, "f1", at, at + 0.2 + seconds, Outcome.OK, session, line=line, run=run, final=final)


def failed(line: str, at: float, why: str, outcome: Outcome = Outcome.REFUSED, *, final: bool = False) -> Operation:
    return Operation(Kind.EXECUTE, "f2", at, at + 0.2, outcome, S, line=line, why=why, final=final)


def other(kind: Kind, at: float, outcome: Outcome = Outcome.OK, session: str = S) -> Operation:
    return Operation(kind, "f2", at, at + 0.2, outcome, session)


def recover(at: float, recovered_from: float | None, outcome: Outcome = Outcome.OK) -> Operation:
    return replace(other(Kind.RECOVER, at, outcome), recovered_from=recovered_from)


def snapshot(at: float) -> Operation:
    return replace(other(Kind.SNAPSHOT, at), snapshot=SNAPSHOT)


def rules(*operations: Operation, listed: dict[str, str] | None = None) -> list[str]:
    return [each.rule for each in violations(History(operations, listed or {}))]


BEGUN = (create(), execute("a", 1, "a"), execute("b", 2, "ab"))


@pytest.mark.parametrize(
    "sound",
    [
        BEGUN,
        # another host after a sleep
        (*BEGUN, other(Kind.SLEEP, 3), execute("c", 4, "abc", place=OTHER_PLACE)),
        # what was not acknowledged may have happened, or not
        (*BEGUN, failed("c", 3, "no answer", Outcome.UNKNOWN), execute("d", 4, "abcd")),
        (*BEGUN, failed("c", 3, "no answer", Outcome.UNKNOWN), execute("d", 4, "abd")),
        (*BEGUN, failed("c", 3, "503 unavailable host_lost"), execute("d", 4, "abd")),
        # the same, sent again with its key after a snapshot that has it
        (
            *(*BEGUN, failed("c", 3, "no answer", Outcome.UNKNOWN), snapshot(4), execute("c", 5, "abc")),
            *(create(CHILD, "k2", 6, SNAPSHOT), execute("d", 7, "abcd", session=CHILD)),
        ),
        # a snapshot that is asked for again with its key is the first one
        (
            *(*BEGUN, replace(snapshot(3), outcome=Outcome.UNKNOWN, snapshot="", key="k3"), execute("c", 4, "abc")),
            *(replace(snapshot(5), key="k3"), create(CHILD, "k2", 6, SNAPSHOT), execute("d", 7, "abd", session=CHILD)),
        ),
        # two runs at a time on one host
        (*BEGUN, execute("c", 3, "abc", seconds=1), execute("d", 3.2, "abcd")),
        # two requests at a time, whose runs follow each other
        (*BEGUN, replace(execute("c", 3, "abc"), end=9.0), execute("d", 4, "abcd", place=OTHER_PLACE)),
        # a recovery that says what it gives up
        (*BEGUN, execute("c", 10, "abc"), recover(20, 5.0), execute("d", 21, "abd", place=OTHER_PLACE)),
        # one of which nobody knows
        (*BEGUN, recover(20, None, Outcome.UNKNOWN), execute("d", 21, "d", place=OTHER_PLACE)),
        # a copy
        (*BEGUN, snapshot(3), create(CHILD, "k2", 4, SNAPSHOT), execute("c", 5, "abc", session=CHILD)),
        # a deleted one
        (*BEGUN, other(Kind.DELETE, 3), failed("c", 4, "404 session_not_found")),
        (*BEGUN, replace(other(Kind.DELETE, 3, Outcome.UNKNOWN), end=9.0), failed("c", 4, "404 session_not_found")),
        # a delete ended a run
        (
            *BEGUN,
            replace(failed("c", 3, "404 session_not_found"), end=4.5),
            execute("d", 3.5, "abcd"),
            other(Kind.DELETE, 4),
        ),
        # the key was used again
        (*BEGUN, create(at=5)),
    ],
)
def test_a_sound_history_has_no_violations(sound: tuple[Operation, ...]) -> None:
    assert rules(*sound) == []


def test_two_hosts_that_run_a_session_at_a_time_are_seen() -> None:
    both = (execute("c", 3, "abc", seconds=1), execute("d", 3.5, "abcd", place=OTHER_PLACE))
    assert rules(*BEGUN, *both) == ["one host at a time"]


def test_an_acknowledged_write_that_is_lost_is_seen() -> None:
    assert rules(*BEGUN, execute("c", 3, "bc")) == ["what was acknowledged stays"]


def test_a_write_that_a_sleep_lost_is_seen_and_told() -> None:
    history = History((*BEGUN, other(Kind.SLEEP, 3), execute("c", 4, "ac", place=OTHER_PLACE)))
    assert [each.what for each in violations(history)] == ["c misses b, which slept"]


def test_a_second_host_that_continues_an_older_state_is_seen() -> None:
    assert rules(*BEGUN, execute("c", 3, "abc"), execute("d", 4, "abd", place=OTHER_PLACE)) == [
        "what was acknowledged stays"
    ]


def test_a_recovery_that_loses_more_than_it_says_is_seen() -> None:
    lost = (*BEGUN, execute("c", 10, "abc"), recover(20, 15.0), execute("d", 21, "abd", place=OTHER_PLACE))
    assert rules(*lost) == ["a recovery is as old as it says"]


def test_a_recovery_before_the_write_excuses_no_loss() -> None:
    assert rules(*BEGUN, recover(3, 2.5), execute("c", 5, "abc"), execute("d", 6, "abd")) == [
        "what was acknowledged stays"
    ]


def test_a_recovery_that_does_not_say_how_old_it_is_is_seen() -> None:
    assert rules(*BEGUN, recover(3, None)) == ["a recovery says how old it is"]


def test_a_recovery_that_is_older_than_what_moved_is_seen() -> None:
    moved = (*BEGUN, execute("c", 10, "abc", place=OTHER_PLACE), recover(20, 0.1), execute("d", 21, "ad"))
    assert "a recovery is no older than what moved" not in rules(*BEGUN, recover(20, 1.5), execute("c", 21, "ac"))
    assert "a recovery is no older than what moved" in rules(*moved)


def test_a_run_that_outlives_a_recovery_is_seen() -> None:
    assert rules(*BEGUN, recover(5, 4.0), execute("c", 3, "abc", seconds=9)) == ["a recovery ends what ran before"]


def test_a_request_that_fails_while_a_host_drains_is_seen() -> None:
    drained = (Happened("drain", "f1", 2.5, 9.0),)
    impatient = failed("c", 3, GAVE_UP, Outcome.UNKNOWN)
    for allowed in (failed("c", 3, "409 session_busy"), failed("c", 10, "502", Outcome.UNKNOWN), impatient):
        assert violations(History((*BEGUN, allowed), faults=drained)) == []
    patient = replace(impatient, end=43.0)
    for failure in (failed("c", 3, "502", Outcome.UNKNOWN), failed("c", 3, "503 unavailable host_lost"), patient):
        found = violations(History((*BEGUN, failure), faults=drained))
        assert [each.rule for each in found] == ["a drain fails no request"]
        paused = replace(drained[0], fault="pause")
        assert violations(History((*BEGUN, failure), faults=(paused,))) == []


def test_programs_that_run_on_two_hosts_are_seen() -> None:
    found = violations(History(BEGUN, both=(Both(S, ("f1", "f2"), 3.0, 6.5),)))
    assert [str(each) for each in found] == ["one host at a time: ses_1: its programs ran on f1 and f2 for 3.5 s"]


def test_programs_that_run_on_two_hosts_for_a_moment_are_allowed_where_one_was_paused() -> None:
    paused = Happened("pause", "f1", 1.0, 4.0)
    allowed = [Both(S, ("f1", "f2"), begin, begin + 1.4) for begin in (1.5, 4.0, 5.0)]
    longer, later = Both(S, ("f1", "f2"), 4.0, 5.6), Both(S, ("f1", "f2"), 6.0, 6.5)
    other_hosts, at_once = Both(S, ("f2", "f3"), 4.0, 4.5), Both(S, ("f1", "f2"), 0.2, 0.7)
    assert violations(History(BEGUN, faults=(paused,), both=tuple(allowed))) == []
    for each in (longer, later, other_hosts, at_once):
        found = violations(History(BEGUN, faults=(paused,), both=(each,)))
        assert [violation.rule for violation in found] == ["one host at a time"]
    lost = replace(paused, fault="unplugged")
    assert violations(History(BEGUN, faults=(lost,), both=tuple(allowed[:1]))) != []


def test_a_request_of_a_drain_that_the_next_fault_cut_is_allowed() -> None:
    drained, unplugged = Happened("drain", "f1", 2.5, 9.0), Happened("unplugged", "f1", 9.5, 20.0)
    cut = replace(failed("c", 8.9, "no answer", Outcome.UNKNOWN), end=9.6)
    assert violations(History((*BEGUN, cut), faults=(drained, unplugged))) == []
    before = replace(cut, end=9.4)
    earlier, again = Happened("unplugged", "f1", 1.0, 2.0), replace(unplugged, fault="drain", begin=9.4)
    for operation, faults in ((before, (drained, unplugged)), (cut, (earlier, drained)), (cut, (drained, again))):
        found = violations(History((*BEGUN, operation), faults=faults))
        assert {each.rule for each in found} == {"a drain fails no request"}


def test_a_run_that_was_first_sent_before_a_drain_may_have_an_unknown_outcome() -> None:
    drained = (Happened("drain", "f1", 2.5, 9.0),)
    lost, again = (replace(failed("c", at, why, Outcome.UNKNOWN), key="k") for at, why in ((2.4, "502"), (3, FOR_GOOD)))
    assert violations(History((*BEGUN, again, lost), faults=drained)) == []
    for operations in ((again,), (replace(lost, key="other"), again), (lost, replace(again, why="502"))):
        found = violations(History((*BEGUN, *operations), faults=drained))
        assert [each.rule for each in found] == ["a drain fails no request"]


def test_a_drain_that_does_not_end_is_seen() -> None:
    found = violations(History(BEGUN, faults=(Happened("drain", "f1", 2.5, 9.0, left=1),)))
    assert [each.rule for each in found] == ["a drain ends at no session"]


def test_a_host_that_is_taken_over_before_the_end_of_its_lease_is_seen() -> None:
    late, early = TakenOver("f1", 3.0, -0.1), TakenOver("f2", 4.0, 6.25)
    assert violations(History(BEGUN, takeovers=(late,))) == []
    assert [str(each) for each in violations(History(BEGUN, takeovers=(late, early)))] == [
        "a host keeps what it has while its lease runs: f2: it was taken over 6.2 s before the end of its lease"
    ]


def test_a_file_whose_past_changes_is_seen() -> None:
    assert rules(*BEGUN, execute("c", 3, "bac")) == ["a file only grows"]


def test_a_run_that_happened_twice_is_seen() -> None:
    assert rules(*BEGUN, failed("c", 3, "no answer", Outcome.UNKNOWN), execute("d", 4, "abccd")) == [
        "a run happens once"
    ]


def test_a_refused_run_that_happened_is_seen() -> None:
    assert rules(*BEGUN, failed("c", 3, "503 unavailable host_lost"), execute("d", 4, "abcd")) == [
        "a refused run does nothing"
    ]


def test_a_run_that_was_refused_first_and_accepted_later_happened() -> None:
    assert rules(*BEGUN, execute("c", 4, "abc"), failed("c", 3, "429 rate_limit_exceeded")) == []


def test_a_line_that_nobody_has_written_is_seen() -> None:
    assert rules(*BEGUN, execute("c", 3, "abzc")) == ["a file has what was written"]


def test_a_run_that_does_not_read_what_it_wrote_is_seen() -> None:
    assert rules(create(), execute("a", 1, "")) == ["a run reads what it wrote"]


def test_a_key_with_two_sessions_is_seen_in_answers_and_in_the_list() -> None:
    assert rules(create(), create(CHILD)) == ["one key, one session"]
    unknown = replace(create("", "k1"), outcome=Outcome.UNKNOWN)
    assert rules(unknown, listed={S: "k1", CHILD: "k1"}) == ["one key, one session"]
    assert rules(create(), create(key="k2")) == ["one key, one session"]


def test_a_refused_create_that_made_a_session_is_seen() -> None:
    refused = replace(create("", "k1"), outcome=Outcome.REFUSED)
    assert rules(refused, listed={S: "k1"}) == ["a refused create makes nothing"]


def test_a_session_that_is_gone_though_nobody_deleted_it_is_seen() -> None:
    assert rules(*BEGUN, failed("c", 3, "404 session_not_found")) == ["a session stays until it is deleted"]
    assert rules(*BEGUN, listed={CHILD: "k2"}) == ["a session stays until it is deleted"]


def test_a_session_that_answers_after_it_was_deleted_is_seen() -> None:
    assert rules(*BEGUN, other(Kind.DELETE, 3), execute("c", 4, "abc")) == ["a deleted session is gone"]
    assert rules(*BEGUN, other(Kind.DELETE, 3), listed={S: "k1"}) == ["a deleted session is gone"]


@pytest.mark.parametrize("kind", [Kind.EXECUTE, Kind.SNAPSHOT, Kind.RECOVER])
def test_a_deleted_session_gives_only_answers_to_keys_that_came_before(kind: Kind) -> None:
    first = replace(other(kind, 2.5, Outcome.UNKNOWN), key="k", line="c")
    replayed = replace(other(kind, 5), key="k", line="c", recovered_from=2.0)
    gone = "a deleted session is gone"
    deleted = other(Kind.DELETE, 3)
    assert rules(*BEGUN, first, deleted, replayed) == []
    assert rules(*BEGUN, replace(first, begin=3.1, end=3.3), deleted, replayed) == [], "while it is deleted"
    assert rules(*BEGUN, replace(first, begin=4.0, end=4.1), deleted, replayed) == [gone]
    assert rules(*BEGUN, deleted, replayed) == [gone]
    assert rules(*BEGUN, replace(first, key=""), deleted, replace(replayed, key="")) == [gone], "no repeat"


def test_a_snapshot_without_what_was_acknowledged_is_seen() -> None:
    copied = (snapshot(3), create(CHILD, "k2", 4, SNAPSHOT), execute("c", 5, "ac", session=CHILD))
    assert rules(*BEGUN, *copied) == ["a snapshot has what was acknowledged"]


def test_a_snapshot_with_what_came_later_is_seen() -> None:
    later = execute("l", 4, "abl")
    copied = (snapshot(3), later, create(CHILD, "k2", 5, SNAPSHOT), execute("c", 6, "ablc", session=CHILD))
    assert rules(*BEGUN, *copied) == ["a snapshot never changes"]


def test_a_session_that_does_not_answer_at_the_end_is_seen() -> None:
    silent = failed("z", 9, "503 unavailable", Outcome.UNKNOWN, final=True)
    assert rules(*BEGUN, silent) == ["each session answers or says why"]


def test_a_session_that_says_why_it_does_not_answer_is_none() -> None:
    why = failed("z", 9, "503 unavailable host_lost", final=True)
    assert rules(*BEGUN, why) == []
    assert unanswered(History((*BEGUN, why))) == [S]


def test_only_the_last_answer_at_the_end_counts() -> None:
    silent = failed("y", 9, "no answer", Outcome.UNKNOWN, final=True)
    assert rules(*BEGUN, silent, execute("z", 10, "abz", final=True)) == []


@pytest.mark.parametrize(
    ("status", "error", "outcome", "why"),
    [
        (200, {}, Outcome.OK, ""),
        (None, {}, Outcome.UNKNOWN, "no answer"),
        (503, {"code": "unavailable", "details": {"waking": True}}, Outcome.REFUSED, "503 unavailable"),
        (
            503,
            {"code": "unavailable", "details": {"reason": "host_lost"}},
            Outcome.REFUSED,
            "503 unavailable host_lost",
        ),
        (503, {"code": "unavailable", "details": {}}, Outcome.UNKNOWN, "503 unavailable"),
        (502, {}, Outcome.UNKNOWN, "502"),
        (408, {"code": "execution_timeout"}, Outcome.UNKNOWN, "408 execution_timeout"),
        (409, {"code": "session_busy"}, Outcome.REFUSED, "409 session_busy"),
        (409, {"code": "outcome_unknown"}, Outcome.UNKNOWN, "409 outcome_unknown"),
        (429, {"code": "rate_limit_exceeded"}, Outcome.REFUSED, "429 rate_limit_exceeded"),
        (507, {"code": "disk_full"}, Outcome.UNKNOWN, "507 disk_full"),
    ],
)
def test_an_answer_that_may_be_repeated_safely_is_a_refusal(
    status: int | None, error: dict[str, object], outcome: Outcome, why: str
) -> None:
    assert outcome_of(status, error) == (outcome, why)


def test_a_history_is_the_same_after_it_was_saved(tmp_path: Path) -> None:
    operations = (*BEGUN, recover(3, 2.5), failed("c", 4, "no answer", Outcome.UNKNOWN))
    history = History(operations, {S: "k1"}, (Happened("drain", "f1", 1.0, 2.0),), (Both(S, ("f1", "f2"), 3.0, 6.5),))
    history = replace(history, takeovers=(TakenOver("f1", 3.0, -0.1),))
    save(history, tmp_path / "history")
    assert load(tmp_path / "history") == history
