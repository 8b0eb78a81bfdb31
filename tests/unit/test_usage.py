from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buntime.plan import Limits
from buntime.session import SavedVolume, Session, State
from buntime.usage import (
    DAY_MS,
    KEPT_DAYS,
    LONGEST_SECONDS,
    NOTE_SECONDS,
    NOTHING,
    Amounts,
    Counters,
    Moment,
    OpenWindow,
    Reading,
    Runs,
    archived_bytes,
    closes_window,
    days_of,
    first_day_of,
    first_window,
    month_of,
    parts_of,
)

MB = 1 << 20
NOON = 1_700_000_000_000
SESSION = Session("ses_a", "acc_a", NOON // 1000, 0, 0, Limits(1024, 0.25, 30, 1024), "sb_a", "vol_a", "img")


def moment(seconds: float = 0, set_by: float = 0, boot: str = "boot") -> Moment:
    """`set_by`: seconds by which somebody has set the clock."""
    return Moment(NOON + int(1000 * (seconds + set_by)), boot, int(1000 * seconds))


def counters(cpu: int = 0, bytes_out: int = 0, memory: int = 0, sandbox: str = "sb_a") -> Counters:
    return Counters(sandbox, cpu, bytes_out, memory)


def opened(state: State = State.ACTIVE, **known: object) -> OpenWindow:
    window = first_window(replace(SESSION, state=state), Reading(moment(), counters(), disk=0, runs=Runs("one", 0)))
    return replace(window, **known)  # type: ignore[arg-type]


# time


@pytest.mark.parametrize(
    ("state", "used"),
    [
        (State.ACTIVE, Amounts(active=7000)),
        (State.IDLE, Amounts(idle=7000)),
        (State.DEEP_SLEEP, Amounts(deep_sleep=7000)),
    ],
)
def test_seconds_count_for_the_state_of_the_window(state: State, used: Amounts) -> None:
    assert opened(state).note(Reading(moment(7))).amounts == used


@pytest.mark.parametrize("set_by", [-7200, 7200])
def test_a_clock_that_is_set_changes_no_amount(set_by: int) -> None:
    window = opened().note(Reading(moment(60, set_by))).note(Reading(moment(90, set_by)))
    assert window.amounts == Amounts(active=90_000)
    assert window.following(State.IDLE).began_at == window.close().ended_at


def test_a_clock_that_is_set_back_ends_no_window_before_it_began() -> None:
    closed = opened().note(Reading(moment(60, -7200))).close()
    assert (closed.began_at, closed.ended_at) == (NOON, NOON)


def test_a_clock_that_is_set_back_makes_no_two_windows_overlap() -> None:
    window = opened().note(Reading(moment(3600)))
    following = window.following(State.IDLE).note(Reading(moment(3660, -7200)))
    last = following.following(State.ACTIVE).note(Reading(moment(9000, -7200)))
    closed = [one.close() for one in (window, following, last)]
    assert all(one.ended_at == after.began_at for one, after in pairwise(closed))
    assert [one.amounts.milliseconds for one in closed] == [3_600_000, 60_000, 5_340_000]


def test_a_host_that_starts_with_a_clock_of_the_future_counts_at_most_31_days() -> None:
    later = Moment(NOON + 4000 * DAY_MS, "another boot", 3)
    assert opened(State.DEEP_SLEEP).note(Reading(later)).amounts == Amounts(deep_sleep=31 * DAY_MS)
    assert later.left_out(moment()) == 3969 * DAY_MS
    assert moment(4000 * 86_400).left_out(moment()) == 0


def test_over_a_start_of_the_host_the_time_of_day_counts() -> None:
    later = Moment(NOON + 50_000, "another boot", 3)
    assert opened(State.DEEP_SLEEP).note(Reading(later)).amounts == Amounts(deep_sleep=50_000)


def test_a_host_that_starts_with_a_clock_of_the_past_counts_no_negative_time() -> None:
    assert opened().note(Reading(Moment(NOON - 50_000, "another boot", 3))).amounts == NOTHING


def test_a_reading_from_before_the_last_note_changes_nothing() -> None:
    window = opened().note(Reading(moment(60), counters(cpu=500), runs=Runs("one", 3)))
    assert window.note(Reading(moment(59), counters(cpu=400), runs=Runs("one", 2))) == window


def test_the_same_reading_twice_counts_once() -> None:
    reading = Reading(moment(60), counters(5, 6, 7 * MB), disk=MB, runs=Runs("one", 8))
    assert opened().note(reading).note(reading) == opened().note(reading)


# counters


def test_counters_count_from_the_last_note() -> None:
    window = opened(counters=counters(cpu=100, bytes_out=10)).note(Reading(moment(1), counters(150, 40)))
    window = window.note(Reading(moment(2), counters(170, 45)))
    assert (window.amounts.cpu, window.amounts.bytes_out) == (70, 35)


def test_readings_that_are_stored_out_of_order_count_nothing_twice() -> None:
    """The time is read before the counters, so a reading with the earlier time may have the higher counts."""
    first = Reading(moment(1), counters(cpu=100, bytes_out=10), runs=Runs("one", 3))
    second = Reading(moment(2), counters(cpu=90, bytes_out=9), runs=Runs("one", 2))
    third = Reading(moment(3), counters(cpu=110, bytes_out=12), runs=Runs("one", 4))
    used = opened().note(first).note(second).note(third).amounts
    assert (used.cpu, used.bytes_out, used.executions) == (110, 12, 4)


def test_what_another_sandbox_used_before_it_was_known_is_not_counted() -> None:
    window = opened(counters=counters(cpu=100)).note(Reading(moment(1), counters(900, sandbox="sb_b")))
    assert window.amounts.cpu == 0
    assert window.note(Reading(moment(2), counters(950, sandbox="sb_b"))).amounts.cpu == 50


def test_a_new_sandbox_counts_from_what_it_had_when_it_was_given() -> None:
    asleep = opened(State.DEEP_SLEEP, counters=None).note(Reading(moment(60)))
    awake = asleep.following(State.ACTIVE, counters(700, 70, sandbox="sb_b"))
    used = awake.note(Reading(moment(61), counters(720, 75, sandbox="sb_b"))).amounts
    assert (used.cpu, used.bytes_out) == (20, 5)


def test_a_window_in_deep_sleep_has_no_cpu_and_no_memory() -> None:
    window = opened(State.DEEP_SLEEP).note(Reading(moment(60), counters(500, 50, MB)))
    assert window.amounts == Amounts(deep_sleep=60_000)


def test_no_window_counts_again_what_the_one_before_it_had() -> None:
    first = opened().note(Reading(moment(60), counters(500, 50), runs=Runs("one", 4)))
    second = first.following(State.IDLE).note(Reading(moment(61), counters(501, 50), runs=Runs("one", 4)))
    assert second.amounts == Amounts(idle=1000, cpu=1)


def test_memory_is_the_mean_of_two_samples() -> None:
    window = opened(counters=counters(memory=MB)).note(Reading(moment(10), counters(memory=3 * MB)))
    assert window.amounts.memory == 10 * 2 * 1024


def test_disk_is_the_mean_of_two_samples_and_stays_where_it_was_not_read() -> None:
    window = opened(disk=MB).note(Reading(moment(10), disk=3 * MB))
    assert window.amounts.disk == 10 * 2 * 1024
    assert window.note(Reading(moment(20))).amounts.disk == 10 * 2 * 1024 + 10 * 3 * 1024


def test_what_the_archive_has_counts_in_every_state() -> None:
    assert opened(State.DEEP_SLEEP, archived=MB).note(Reading(moment(10))).amounts.archived == 10 * 1024


def test_another_run_of_the_server_counts_executions_from_zero() -> None:
    window = opened(runs=Runs("one", 5)).note(Reading(moment(1), runs=Runs("one", 7)))
    assert window.note(Reading(moment(2), runs=Runs("two", 3))).amounts.executions == 2 + 3


# windows


def test_windows_follow_one_another_without_a_gap() -> None:
    first = opened().note(Reading(moment(60)))
    second = first.following(State.IDLE)
    assert second.began_at == first.close().ended_at
    assert (first.close().id, second.close().id) == ("win_a_1", "win_a_2")


@pytest.mark.parametrize("state", LONGEST_SECONDS)
def test_a_window_closes_before_its_next_note_would_make_it_too_long(state: State) -> None:
    window, passed = opened(state), 0
    while not window.is_long:
        passed += NOTE_SECONDS[state]
        window = window.note(Reading(moment(passed)))
    assert LONGEST_SECONDS[state] - NOTE_SECONDS[state] <= passed <= LONGEST_SECONDS[state]


@pytest.mark.parametrize(
    ("change", "closes"),
    [
        ({"state": State.IDLE}, True),
        ({"sandbox": "sb_b"}, True),
        ({"name": "mine"}, False),
        ({"archived": True}, False),
    ],
)
def test_a_change_of_state_or_sandbox_closes_the_window(change: dict[str, object], closes: bool) -> None:
    assert closes_window(SESSION, replace(SESSION, **change)) is closes  # type: ignore[arg-type]


def test_an_object_that_two_saves_share_counts_once() -> None:
    older = SavedVolume("a/1", 100, 1)
    newer = SavedVolume("a/2", 7, 2, ("a/1",), (100,))
    assert archived_bytes(replace(SESSION, saved=newer, previous=older)) == 107
    assert archived_bytes(SESSION) == 0


# days


MIDNIGHT = 20_000 * DAY_MS


def test_what_was_used_over_midnight_is_shared_by_time() -> None:
    shares = dict(days_of(Amounts(active=4000, cpu=101), MIDNIGHT + 3000))
    assert shares == {19_999: Amounts(active=1000, cpu=25), 20_000: Amounts(active=3000, cpu=76)}


def test_what_ends_at_midnight_is_of_the_day_before() -> None:
    assert dict(days_of(Amounts(active=1000), MIDNIGHT)) == {19_999: Amounts(active=1000)}


def test_what_took_no_time_is_of_the_day_on_which_it_ended() -> None:
    assert dict(days_of(Amounts(cpu=5), MIDNIGHT)) == {20_000: Amounts(cpu=5)}


def test_a_host_that_starts_with_a_clock_of_the_future_fills_no_more_days_than_are_kept() -> None:
    shares = dict(days_of(Amounts(deep_sleep=30_000 * DAY_MS), 40_000 * DAY_MS))
    assert len(shares) == KEPT_DAYS
    assert sum(share.deep_sleep for share in shares.values()) == 30_000 * DAY_MS


@settings(deadline=None)
@given(
    used=st.builds(
        Amounts, *[st.integers(0, 1 << 40)] * 2, st.integers(0, 40 * DAY_MS), *[st.integers(0, 1 << 40)] * 6
    ),
    until=st.integers(0, 30_000 * DAY_MS),
)
def test_the_shares_of_days_add_up(used: Amounts, until: int) -> None:
    shares = list(days_of(used, until))
    assert sum((share for _, share in shares), NOTHING) == used
    assert all(min(share.values) >= 0 for _, share in shares)
    assert [day for day, _ in shares] == sorted({day for day, _ in shares})


@given(first=st.integers(0, 40_000), days=st.integers(0, 900))
def test_whole_months_and_the_rest_are_all_the_days(first: int, days: int) -> None:
    last = first + days
    months, rest = parts_of(first, last)
    found = [day for month in months for day in range(first_day_of(month), first_day_of(month + 1))]
    found += [day for begin, end in rest for day in range(begin, end + 1)]
    assert sorted(found) == list(range(first, last + 1))
    assert all(len({month_of(day) for day in (begin, end)}) <= 2 for begin, end in rest)


@given(steps=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 9), st.sampled_from([None, *State])), max_size=30))
def test_notes_and_windows_add_up_to_what_the_counters_say(steps: list[tuple[int, int, State | None]]) -> None:
    window, closed, now, count = opened(), NOTHING, 0.0, 0
    for milliseconds, used, state in steps:
        now, count = now + milliseconds / 1000, count + used
        window = window.note(Reading(moment(now), counters(count, count), runs=Runs("one", count)))
        if state in (State.ACTIVE, State.IDLE):
            closed += window.close().amounts
            window = window.following(state)
    total = closed + window.amounts
    assert (total.cpu, total.bytes_out, total.executions) == (count, count, count)
    assert total.milliseconds == window.noted.steady
