"""What one host does with its shares."""

import pytest

from buntime.fleet.shares import EMPTY_SECONDS, IDLE_SECONDS, Granted, Shares, Unused, Wanted, share_of

MINUTE = 1000
WANTED = Wanted("key", 100, 10)


@pytest.fixture
def shares() -> Shares:
    """With ten requests for the next 40 seconds."""
    shares = Shares()
    shares.grant(WANTED, Granted(MINUTE, 10, 30, 40.0), 5.0, 6.0)
    return shares


def takes(shares: Shares, number: int, now: float = 10.0) -> None:
    for _ in range(number):
        standing = shares.take("key", 100, now)
        assert standing is not None
        assert standing.allowed


def test_the_database_is_asked_first_and_when_a_share_is_used_up(shares: Shares) -> None:
    assert Shares().take("key", 100, 10.0) is None
    assert Shares().lacks("key", 10.0)
    takes(shares, 10)
    assert shares.take("key", 100, 10.0) is None
    assert shares.lacks("key", 10.0)


def test_what_remains_is_the_share_and_what_nobody_has_got(shares: Shares) -> None:
    standing = shares.take("key", 100, 10.0)
    assert standing is not None
    assert (standing.limit, standing.remaining, standing.reset) == (100, 9 + 70, (MINUTE + 1) * 60)
    assert standing.seconds == pytest.approx(35, abs=0.1)


def test_a_share_ends_with_its_minute_counted_from_the_question(shares: Shares) -> None:
    takes(shares, 1, now=44.9)
    assert shares.take("key", 100, 45.0) is None


def test_a_share_of_a_new_minute_does_not_add_to_an_old_one(shares: Shares) -> None:
    shares.grant(WANTED, Granted(MINUTE + 1, 10, 10, 60.0), 44.0, 44.1)
    takes(shares, 10, now=45.0)
    assert shares.take("key", 100, 45.0) is None


def test_a_refusal_counts_for_a_second(shares: Shares) -> None:
    takes(shares, 10)
    shares.grant(WANTED, Granted(MINUTE, 0, 100, 34.0), 11.0, 11.0)
    refused = shares.take("key", 100, 11.5)
    assert refused is not None
    assert (refused.allowed, refused.remaining) == (False, 0)
    assert not shares.lacks("key", 11.5)
    assert shares.take("key", 100, 11.0 + EMPTY_SECONDS) is None


def test_a_request_that_is_put_back_can_be_used(shares: Shares) -> None:
    takes(shares, 10)
    shares.put_back("key")
    takes(shares, 1)


def test_a_share_goes_back_when_it_was_not_used_for_a_while(shares: Shares) -> None:
    takes(shares, 3, now=10.0)
    assert shares.take_idle(10.0 + IDLE_SECONDS - 0.1, lambda _: False) == []
    assert shares.take_idle(10.0 + IDLE_SECONDS, lambda _: True) == []
    assert shares.take_idle(10.0 + IDLE_SECONDS, lambda _: False) == [Unused("key", MINUTE, 7)]
    assert shares.take("key", 100, 10.0 + IDLE_SECONDS) is None


def test_what_is_over_is_forgotten_and_does_not_go_back(shares: Shares) -> None:
    assert shares.take_idle(45.0, lambda _: True) == []
    assert "key" not in shares


@pytest.mark.parametrize(("limit", "hosts"), [(1000, 10), (1000, 3), (5000, 10), (1234, 7), (100_000, 50), (1000, 1)])
def test_what_other_hosts_have_not_used_is_less_than_a_tenth(limit: int, hosts: int) -> None:
    assert 0 <= (hosts - 1) * (share_of(limit, hosts) - 1) < limit / 10


def test_a_share_has_at_least_one_request() -> None:
    assert share_of(3, 10) == share_of(0, 1) == share_of(1, 0) == 1
