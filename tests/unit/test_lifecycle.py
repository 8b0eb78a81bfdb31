import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buntime.lifecycle import Step, next_step
from buntime.plan import Limits
from buntime.session import Session, State

IDLE, DEEP = 300.0, 1800.0
EXPIRES = 100_000
NEVER_TOUCHED = 10_000


def session(state: State, last_active: int = NEVER_TOUCHED) -> Session:
    limits = Limits(memory=1024, cpu=0.25, timeout=30, disk=1024)
    return Session("ses_a", "acc_a", NEVER_TOUCHED, EXPIRES, last_active, limits, "sb_a", "img", state)


@pytest.mark.parametrize(
    ("state", "quiet", "step"),
    [
        (State.ACTIVE, 0, Step.NOTHING),
        (State.ACTIVE, 299, Step.NOTHING),
        (State.ACTIVE, 300, Step.SUSPEND),
        (State.ACTIVE, 1800, Step.SUSPEND),
        (State.IDLE, 300, Step.NOTHING),
        (State.IDLE, 1799, Step.NOTHING),
        (State.IDLE, 1800, Step.ARCHIVE),
        (State.DEEP_SLEEP, 50_000, Step.NOTHING),
        (State.DELETING, 0, Step.FINISH_DELETE),
    ],
)
def test_a_quiet_session_takes_one_step_at_a_time(state: State, quiet: int, step: Step) -> None:
    assert next_step(session(state), NEVER_TOUCHED + quiet, IDLE, DEEP) is step


@pytest.mark.parametrize("state", [State.ACTIVE, State.IDLE, State.DEEP_SLEEP])
def test_a_session_expires_when_its_time_has_come_whatever_it_does(state: State) -> None:
    busy = session(state, last_active=EXPIRES - 1)
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
