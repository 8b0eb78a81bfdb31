"""What is told of a change, and who is named as its cause."""

import asyncio
from dataclasses import replace

import pytest

from buntime.cause import SERVER, Cause, caused_by
from buntime.event import AccountEvent, EventType, of_change, of_new_session, of_revoked_key
from buntime.session import Event, Session, State
from tests.contracts.examples import NOW, key, session

MINE = Cause("key", "acc_one", "req_1", "key_one", "192.0.2.1")
OTHERS = Cause("key", "acc_two", "req_2", "key_two", "192.0.2.2")


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (State.ACTIVE, State.IDLE, EventType.SESSION_IDLE),
        (State.ACTIVE, State.DEEP_SLEEP, EventType.SESSION_DEEP_SLEEP),
        (State.IDLE, State.DEEP_SLEEP, EventType.SESSION_DEEP_SLEEP),
        (State.IDLE, State.ACTIVE, EventType.SESSION_WOKEN),
        (State.DEEP_SLEEP, State.ACTIVE, EventType.SESSION_WOKEN),
        (State.ACTIVE, State.DELETING, EventType.SESSION_DELETED),
        (State.DEEP_SLEEP, State.DELETING, EventType.SESSION_DELETED),
    ],
)
def test_a_new_state_is_told(before: State, after: State, told: EventType) -> None:
    (event,) = of_change(session(state=before, called="ci"), session(state=after), NOW + 1)
    assert (event.type, event.account, event.session, event.time) == (told, "acc_one", "ses_one", NOW + 1)
    assert event.data == {"name": "ci", "stateBefore": before.value}


@pytest.mark.parametrize("changed", [session(expires_at=NOW + 900), session(metadata={"a": 1}), session(called="b")])
def test_a_change_within_a_state_is_not_told(changed: Session) -> None:
    assert of_change(session(), changed, NOW) == ()


def test_a_session_whose_time_is_over_has_expired_and_nobody_caused_it() -> None:
    old = session(expires_at=NOW)
    with caused_by(MINE):
        (event,) = of_change(old, old.after(Event.DELETE), NOW)
    assert (event.type, event.cause) == (EventType.SESSION_EXPIRED, SERVER)


def test_a_deletion_names_the_request_the_key_and_the_address() -> None:
    with caused_by(MINE):
        (event,) = _deleted(session())
    assert event.cause == MINE


def test_the_request_of_another_account_is_never_named() -> None:
    with caused_by(OTHERS):
        (event,) = _deleted(session())
    assert event.cause == SERVER


async def test_a_task_inherits_the_cause_of_the_request_that_started_it() -> None:
    async def later() -> Cause:
        await asyncio.sleep(0)
        return _deleted(session())[0].cause

    with caused_by(MINE):
        task = asyncio.create_task(later())
    assert await task == MINE
    assert _deleted(session())[0].cause == SERVER


def test_what_is_told_of_a_session_has_nothing_of_its_content() -> None:
    secret = replace(session(metadata={"m": "secret"}), env={"TOKEN": "secret"}, on_wake="secret", key="secret")
    told = [of_new_session(secret), *_deleted(secret)]
    assert "secret" not in repr(told)


def test_what_is_told_of_a_key_has_no_secret_and_no_hash() -> None:
    assert "hash of" not in repr(of_revoked_key(key(), NOW))


def _deleted(of: Session) -> tuple[AccountEvent, ...]:
    return of_change(of, of.after(Event.DELETE), NOW)
