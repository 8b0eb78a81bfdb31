"""What a host does with what it holds, and with requests for what it does not own."""

import pytest

from buntime.fleet.ownership import Fate, Handling, Ownership, compare, fate_of, handling_of
from buntime.session import State

ASLEEP, AWAKE = State.DEEP_SLEEP, State.ACTIVE
ROWS = [
    Ownership("kept", "a", 2, AWAKE),
    Ownership("moved", "b", 3, AWAKE),
    Ownership("moved and came back", "a", 4, ASLEEP),
    Ownership("of nobody", None, 3, ASLEEP),
    Ownership("missing", "a", 1, State.IDLE),
    Ownership("asleep", "a", 1, ASLEEP),
]
FOUND = compare("a", {"kept": 2, "moved": 2, "moved and came back": 2, "of nobody": 2, "deleted": 2}, ROWS)


def test_a_host_keeps_what_it_owns_with_the_same_epoch_alone() -> None:
    assert FOUND.keep == {"kept"}
    assert FOUND.moved == {"moved", "moved and came back", "of nobody"}


def test_a_session_without_a_row_is_gone() -> None:
    assert FOUND.gone == {"deleted"}


def test_a_session_that_should_be_awake_here_is_missing() -> None:
    assert FOUND.missing == {"missing"}


def test_requests_go_to_a_host_that_is_well() -> None:
    for state in State:
        assert handling_of(state, archived=True, taken_over=False) is Handling.FORWARD


def test_a_sleeping_session_of_a_lost_host_wakes_elsewhere() -> None:
    assert handling_of(ASLEEP, archived=True, taken_over=True) is Handling.CLAIM


@pytest.mark.parametrize(("state", "archived"), [(AWAKE, False), (AWAKE, True), (State.IDLE, False), (ASLEEP, False)])
def test_a_session_is_never_silently_older(state: State, archived: bool) -> None:
    assert handling_of(state, archived=archived, taken_over=True) is Handling.HOST_LOST


def test_what_has_changed_on_a_host_that_comes_back_is_kept_aside() -> None:
    assert fate_of("kept", FOUND, changed=True) is Fate.SERVE
    assert fate_of("moved", FOUND, changed=True) is Fate.KEEP_ASIDE
    assert fate_of("moved and came back", FOUND, changed=True) is Fate.KEEP_ASIDE


def test_what_the_archive_has_or_nobody_wants_is_dropped() -> None:
    assert fate_of("moved", FOUND, changed=False) is Fate.DROP
    assert fate_of("deleted", FOUND, changed=True) is Fate.DROP
