"""For how long a host lets a key pass without asking."""

import pytest

from buntime.account import Key
from buntime.stores.postgres import known_keys
from buntime.stores.postgres.known_keys import SECONDS, KnownKeys
from tests.clock import Clock
from tests.contracts.examples import account

FOUND = Key("key_a", "acc_one", "hash", "", 0), account()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(clock: Clock) -> KnownKeys:
    return KnownKeys(clock)


def test_a_key_is_known_for_a_second_from_when_it_was_asked_for(keys: KnownKeys, clock: Clock) -> None:
    learn = keys.asking()
    clock.now += SECONDS / 2
    learn("hash", FOUND)
    assert keys.get("hash") == FOUND
    assert keys.get("other") is None
    clock.now += SECONDS / 2
    assert keys.get("hash") is None


def test_a_change_of_this_host_is_seen_at_once(keys: KnownKeys) -> None:
    keys.asking()("hash", FOUND)
    late = keys.asking()
    keys.forget()
    assert keys.get("hash") is None
    late("hash", FOUND)
    assert keys.get("hash") is None, "it was asked for before the change"


def test_only_the_newest_are_kept(keys: KnownKeys) -> None:
    for number in range(known_keys.MOST + 1):
        keys.asking()(str(number), FOUND)
    assert keys.get("0") is None
    assert keys.get("1") == FOUND
