"""A create asks how many sessions an account has only where the answer may refuse it."""

from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from buntime.account import Account, new_key
from buntime.caller import Caller
from buntime.errors import SessionLimitExceeded
from buntime.operations import room
from buntime.operations.room import Room
from buntime.plan import load_plans
from tests.clock import Clock

LIMIT = 8


@dataclass
class Counting:
    """A store that counts how often it is asked."""

    sessions: int = 0
    asked: list[str] = field(default_factory=list)

    async def count_sessions(self, account: str) -> int:
        self.asked.append(account)
        return self.sessions


@pytest.fixture
def store() -> Counting:
    return Counting()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rooms(store: Counting, clock: Clock) -> Room:
    return Room(cast(Any, store), clock)


def caller(account: str = "acc_a") -> Caller:
    plan = replace(load_plans(None)["free"], sessions=LIMIT)
    return Caller(Account(account, "free", 0), new_key(account, 0)[0], plan)


async def test_an_account_with_much_room_is_asked_for_once(rooms: Room, store: Counting, clock: Clock) -> None:
    for _ in range(LIMIT // 2):
        await rooms.require(caller())
    assert store.asked == ["acc_a"]
    await rooms.require(caller())
    assert store.asked == ["acc_a"] * 2, "those that began count"
    clock.now += room.SECONDS
    await rooms.require(caller())
    assert store.asked == ["acc_a"] * 3


async def test_what_is_known_of_one_account_says_nothing_of_another(rooms: Room, store: Counting) -> None:
    await rooms.require(caller())
    await rooms.require(caller("acc_b"))
    assert store.asked == ["acc_a", "acc_b"]


async def test_an_account_near_its_limit_is_asked_for_each_time(rooms: Room, store: Counting) -> None:
    store.sessions = LIMIT // 2
    await rooms.require(caller())
    store.sessions = LIMIT
    for _ in range(2):
        with pytest.raises(SessionLimitExceeded):
            await rooms.require(caller())
    assert len(store.asked) == 3


async def test_after_a_refusal_of_the_store_the_next_create_asks(rooms: Room, store: Counting) -> None:
    await rooms.require(caller())
    rooms.forget("acc_a")  # other hosts have filled the account
    store.sessions = LIMIT
    with pytest.raises(SessionLimitExceeded):
        await rooms.require(caller())


async def test_only_the_newest_accounts_are_kept(rooms: Room, store: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST", 2)
    for account in ("acc_a", "acc_b", "acc_c", "acc_a"):
        await rooms.require(caller(account))
    assert store.asked == ["acc_a", "acc_b", "acc_c", "acc_a"]
