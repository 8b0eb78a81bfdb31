"""Which other host has had a session a moment ago."""

from buntime.operations import guesses
from buntime.operations.guesses import SECONDS, Guesses
from buntime.ports import Peer

PEER = Peer("hst_other", "192.0.2.7:8443")


def test_a_guess_is_for_the_sessions_account_and_for_a_moment() -> None:
    now = 1000.0
    known = Guesses(lambda: now)
    known.learn("acc_a", "ses_1", PEER)
    assert known.of("acc_a", "ses_1") == PEER
    assert known.of("acc_b", "ses_1") is None
    assert known.of("acc_a", "ses_2") is None
    now += SECONDS
    assert known.of("acc_a", "ses_1") is None


def test_a_clock_that_is_set_back_makes_no_guess_last() -> None:
    now = 1000.0
    known = Guesses(lambda: now)
    known.learn("acc_a", "ses_1", PEER)
    now -= 500
    assert known.of("acc_a", "ses_1") is None


def test_only_the_newest_are_kept() -> None:
    known = Guesses(lambda: 1000.0)
    for number in range(guesses.MOST + 1):
        known.learn("acc_a", f"ses_{number}", PEER)
    assert known.of("acc_a", "ses_0") is None
    assert known.of("acc_a", "ses_1") == PEER
