from dataclasses import replace

import pytest

from buntime.plan import Limits
from buntime.session import DESTROYED, TRANSITIONS, Event, SavedVolume, Session, State

LIMITS = Limits(memory=1024, cpu=0.25, timeout=30, disk=1024)
SESSION = Session("ses_a", "acc_a", 0, 300, 0, LIMITS, "sb_a", "vol_a", "img")
SAVED = SavedVolume("ses_a/1", 4096, 7)

STEPS = {
    (State.ACTIVE, Event.SUSPEND): State.IDLE,
    (State.ACTIVE, Event.DELETE): State.DELETING,
    (State.IDLE, Event.RESUME): State.ACTIVE,
    (State.IDLE, Event.DEEP_SLEEP): State.DEEP_SLEEP,
    (State.IDLE, Event.DELETE): State.DELETING,
    (State.DEEP_SLEEP, Event.WAKE): State.ACTIVE,
    (State.DEEP_SLEEP, Event.DELETE): State.DELETING,
}
OTHERS = [(state, event) for state in State for event in Event if (state, event) not in STEPS]


@pytest.mark.parametrize(("state", "event"), STEPS)
def test_a_step_of_the_table_changes_only_the_state(state: State, event: Event) -> None:
    before = replace(SESSION, state=state)
    assert before.after(event) == replace(SESSION, state=STEPS[state, event])


@pytest.mark.parametrize(("state", "event"), OTHERS)
def test_any_other_step_is_refused(state: State, event: Event) -> None:
    with pytest.raises(ValueError, match=f"{event} is not possible in state {state}"):
        replace(SESSION, state=state).after(event)


@pytest.mark.parametrize(("state", "event"), STEPS)
def test_a_session_that_leaves_deep_sleep_is_not_archived_any_more(state: State, event: Event) -> None:
    archived = replace(SESSION, state=state, saved=SAVED, previous=SAVED, archived=True).after(event)
    assert archived.archived == (archived.state is State.DEEP_SLEEP)
    assert (archived.saved, archived.previous) == (SAVED, SAVED)


@pytest.mark.parametrize(("state", "event"), STEPS)
def test_only_a_delete_destroys_the_key(state: State, event: Event) -> None:
    after = replace(SESSION, state=state, key="wrapped").after(event)
    assert after.key == (DESTROYED if event is Event.DELETE else "wrapped")


def test_a_deleted_session_that_never_had_a_key_has_none_to_destroy() -> None:
    assert SESSION.after(Event.DELETE).key == ""


def test_every_state_has_its_row_in_the_table() -> None:
    assert set(TRANSITIONS) == set(State)


def test_no_step_leads_out_of_a_delete() -> None:
    assert TRANSITIONS[State.DELETING] == {}


def test_a_session_cannot_be_changed_in_place() -> None:
    with pytest.raises(AttributeError):
        SESSION.state = State.IDLE  # type: ignore[misc]
