import math
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buntime.lifecycle.decisions import (
    WORK_BYTES,
    WORK_CPU,
    Asleep,
    Step,
    Waits,
    archived_until,
    before_checkpoint,
    coldest_suspended,
    is_at_work,
    is_lost,
    least_recently_used,
    next_due,
    next_step,
    waits_of,
)
from buntime.plan import Limits, load_plans
from buntime.ports import Worked
from buntime.session import NEVER, AwakeWhile, SavedVolume, Session, SleepPolicy, State

IDLE, DEEP = 300.0, 1800.0
EXPIRES = 100_000
NEVER_TOUCHED = 10_000


def session(state: State, last_active: int = NEVER_TOUCHED, *, name: str = "a", archived: bool = False) -> Session:
    limits = Limits(memory=1024, cpu=0.25, timeout=30, disk=1024)
    known = (f"ses_{name}", "acc_a", NEVER_TOUCHED, EXPIRES, last_active, limits, f"sb_{name}", f"vol_{name}", "img")
    return Session(*known, state, archived=archived)


@pytest.mark.parametrize(
    ("state", "quiet", "step"),
    [
        (State.ACTIVE, 0, Step.NOTHING),
        (State.ACTIVE, 299, Step.NOTHING),
        (State.ACTIVE, 300, Step.SUSPEND),
        (State.ACTIVE, 1800, Step.SUSPEND),
        (State.IDLE, 300, Step.NOTHING),
        (State.IDLE, 1799, Step.NOTHING),
        (State.IDLE, 1800, Step.DEEP_SLEEP),
        (State.DEEP_SLEEP, 0, Step.ARCHIVE),
        (State.DEEP_SLEEP, 50_000, Step.ARCHIVE),
        (State.DELETING, 0, Step.FINISH_DELETE),
    ],
)
def test_a_quiet_session_takes_one_step_at_a_time(state: State, quiet: int, step: Step) -> None:
    assert next_step(session(state), NEVER_TOUCHED + quiet, IDLE, DEEP) is step


def test_an_archived_session_needs_nothing_until_it_expires() -> None:
    assert next_step(session(State.DEEP_SLEEP, archived=True), EXPIRES - 1, IDLE, DEEP) is Step.NOTHING


@pytest.mark.parametrize("state", [State.ACTIVE, State.IDLE, State.DEEP_SLEEP])
def test_a_session_expires_on_time_in_every_state(state: State) -> None:
    busy = session(state, last_active=EXPIRES - 1, archived=state is State.DEEP_SLEEP)
    assert next_step(busy, EXPIRES - 1, IDLE, DEEP) is Step.NOTHING
    assert next_step(busy, EXPIRES, IDLE, DEEP) is Step.EXPIRE
    assert next_step(busy, EXPIRES + 0.5, IDLE, DEEP) is Step.EXPIRE


def test_an_expired_session_being_deleted_is_only_finished() -> None:
    assert next_step(session(State.DELETING), EXPIRES + 1, IDLE, DEEP) is Step.FINISH_DELETE


def test_a_clock_that_was_set_back_makes_nothing_happen_early() -> None:
    assert next_step(session(State.ACTIVE, last_active=50_000), 20_000, IDLE, DEEP) is Step.NOTHING


@given(st.sampled_from([State.ACTIVE, State.IDLE]), st.integers(0, EXPIRES - 1))
def test_a_threshold_of_infinity_never_comes(state: State, now: int) -> None:
    assert next_step(session(state), now, math.inf, math.inf) is Step.NOTHING


@pytest.mark.parametrize("state", [State.ACTIVE, State.IDLE, State.DEEP_SLEEP])
def test_a_session_without_an_end_never_expires(state: State) -> None:
    endless = replace(session(state, 10**15, archived=state is State.DEEP_SLEEP), expires_at=None)
    assert next_step(endless, 10**15, IDLE, DEEP) is Step.NOTHING
    assert next_due(endless, math.inf, math.inf) == math.inf


PLAN = replace(load_plans(None)["paid"], idle_after_most=600, deep_sleep_after_most=6000, may_await_processes=True)
USUAL = Waits(IDLE, DEEP)


@pytest.mark.parametrize(
    ("policy", "waits"),
    [
        (SleepPolicy(), USUAL),
        (SleepPolicy(60, 120), Waits(60, 120)),
        (SleepPolicy(600, 6000), Waits(600, 6000)),
        (SleepPolicy(NEVER, NEVER), Waits(600, 6000)),
        (SleepPolicy(601, None), Waits(600, DEEP)),
        (SleepPolicy(awake_while=AwakeWhile.PROCESSES), Waits(IDLE, DEEP, awaits_processes=True)),
    ],
)
def test_a_session_waits_as_it_asked_within_what_its_plan_allows_now(policy: SleepPolicy, waits: Waits) -> None:
    assert waits_of(policy, PLAN, USUAL) == waits


def test_a_plan_may_allow_any_wait_or_no_longer_await_processes() -> None:
    boundless = replace(PLAN, idle_after_most=math.inf, deep_sleep_after_most=math.inf)
    assert waits_of(SleepPolicy(NEVER, NEVER), boundless, USUAL) == Waits(math.inf, math.inf)
    working = SleepPolicy(awake_while=AwakeWhile.PROCESSES)
    assert waits_of(working, replace(PLAN, may_await_processes=False), USUAL) == USUAL
    assert waits_of(SleepPolicy(NEVER, NEVER, awake_while=AwakeWhile.PROCESSES), None, USUAL) == USUAL


def test_the_servers_own_waits_may_be_longer_than_a_plan_lets_a_session_ask_for() -> None:
    assert waits_of(SleepPolicy(), PLAN, Waits(math.inf, math.inf)) == Waits(math.inf, math.inf)


@pytest.mark.parametrize(
    ("cpu_seconds", "sent", "is_work"),
    [
        (0, 0, False),
        (WORK_CPU * 60 - 0.01, 0, False),
        (WORK_CPU * 60, 0, True),
        (0, WORK_BYTES * 60 - 1, False),
        (0, WORK_BYTES * 60, True),
        (WORK_CPU * 30, WORK_BYTES * 30, False),
    ],
)
def test_work_is_enough_processor_time_or_enough_network(cpu_seconds: float, sent: int, is_work: bool) -> None:
    before = Worked("sb_a", 5_000_000, 70_000)
    now = Worked("sb_a", 5_000_000 + round(cpu_seconds * 1e6), 70_000 + sent)
    assert is_at_work(before, now, 60.0) == is_work


STATES = st.sampled_from(State)
TIMES = st.integers(0, EXPIRES + 10)


@given(STATES, TIMES, TIMES, st.booleans(), st.sampled_from(Asleep))
def test_a_step_is_due_at_next_due_and_not_before(
    state: State, active: int, now: int, archived: bool, asleep: Asleep
) -> None:
    some = session(state, active, archived=archived and state is State.DEEP_SLEEP)
    due = next_due(some, IDLE, DEEP, asleep)
    assert (next_step(some, now, IDLE, DEEP, asleep) is not Step.NOTHING) == (now >= due)


@given(TIMES, st.sampled_from([Asleep.STAYS, Asleep.KEPT]))
def test_a_session_that_stays_suspended_never_goes_to_deep_sleep_by_itself(now: int, asleep: Asleep) -> None:
    assert next_step(session(State.IDLE), now, IDLE, DEEP, asleep) is not Step.DEEP_SLEEP


def test_the_coldest_sessions_are_suspended_and_the_quietest_comes_first() -> None:
    warm, cold = session(State.IDLE, 900, name="warm"), session(State.IDLE, 100, name="cold")
    others = [session(state, 50, name=state) for state in State if state is not State.IDLE]
    assert coldest_suspended([warm, *others, cold]) == [cold, warm]


SIZES: Mapping[str, int] = {"vol_first": 10, "vol_second": 20, "vol_third": 30, "vol_unsaved": 1000}
SLEEPERS = [
    session(State.DEEP_SLEEP, 200, name="second", archived=True),
    session(State.DEEP_SLEEP, 10, name="unsaved"),
    session(State.DEEP_SLEEP, 300, name="third", archived=True),
    session(State.DEEP_SLEEP, 100, name="first", archived=True),
    session(State.DEEP_SLEEP, 1, name="evicted", archived=True),
]


@pytest.mark.parametrize(
    ("size", "names"),
    [
        (0, []),
        (-5, []),
        (1, ["first"]),
        (10, ["first"]),
        (11, ["first", "second"]),
        (31, ["first", "second", "third"]),
        (10_000, ["first", "second", "third"]),
    ],
)
def test_eviction_chooses_the_least_recently_used_archived_volumes_up_to_the_size(size: int, names: list[str]) -> None:
    chosen = least_recently_used(SLEEPERS, SIZES, size)
    assert [some.id.removeprefix("ses_") for some in chosen] == names


def test_a_volume_of_a_session_that_is_awake_is_never_chosen() -> None:
    awake = replace(session(State.IDLE, name="first"), archived=False)
    assert least_recently_used([awake], SIZES, 1) == []


@given(every=st.integers(5, 86_400), took=st.floats(0, 1e6))
def test_a_checkpoint_begins_early_enough_to_end_in_time_and_takes_at_most_half_of_the_time(
    every: int, took: float
) -> None:
    wait = before_checkpoint(every, took)
    assert every / 2 <= wait < every
    assert wait + took <= every or wait == every / 2


@pytest.mark.parametrize(
    ("taken_at", "current", "now", "until"),
    [
        (None, 0.0, 50_000.0, NEVER_TOUCHED),
        (None, 20_000.0, 50_000.0, 20_000.0),
        (30_000, 0.0, 50_000.0, 30_000),
        (30_000, 20_000.0, 50_000.0, 30_000),
        (30_000, 40_000.0, 50_000.0, 40_000.0),
        (30_000, 40_000.0, 25_000.0, 25_000.0),
    ],
)
def test_what_is_archived_is_known_from_the_last_save_or_the_last_look(
    taken_at: int | None, current: float, now: float, until: float
) -> None:
    """The last one: the clock was set back."""
    saved = None if taken_at is None else SavedVolume("ses_a/1", 1, taken_at)
    assert archived_until(replace(session(State.ACTIVE), saved=saved), current, now) == until


@pytest.mark.parametrize(
    ("state", "archived", "saved", "lost"),
    [
        (State.ACTIVE, False, None, True),
        (State.IDLE, False, False, True),
        (State.DEEP_SLEEP, False, False, True),
        (State.DEEP_SLEEP, True, False, False),  # as every session whose volume was evicted
        (State.DEEP_SLEEP, True, True, True),  # it was awake when its volume was lost
        (State.DEEP_SLEEP, True, None, True),
    ],
)
def test_files_are_lost_where_a_wake_would_not_go_on_from_the_newest_ones(
    state: State, archived: bool, saved: bool | None, lost: bool
) -> None:
    """`saved`: whether the newest saved state is a checkpoint; None: there is none."""
    newest = None if saved is None else SavedVolume("ses/1-a", 1, 1, is_checkpoint=saved)
    one = replace(session(state, archived=archived), saved=newest)
    assert is_lost(one, is_here=False) is lost
    assert not is_lost(one, is_here=True)
