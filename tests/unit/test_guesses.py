"""Which other host has had a session a moment ago."""

import pytest

from buntime.operations import guesses
from buntime.operations.guesses import SECONDS, STEADY_SECONDS, Guesses
from buntime.ports import Peer

ME, PEER = Peer("hst_me", "192.0.2.6:8443"), Peer("hst_other", "192.0.2.7:8443")


class Host:
    def __init__(self) -> None:
        self.now = 1000.0
        self.incarnations: dict[Peer, int] = {}
        self.guesses = Guesses(ME.id, self.incarnations.get, lambda: self.now)

    def guess(self, session: str = "ses_1", account: str = "acc_a") -> Peer | None:
        return self.guesses.of(account, session)


@pytest.fixture
def host() -> Host:
    host = Host()
    host.guesses.learn("acc_a", "ses_1", PEER)
    return host


def test_a_guess_is_for_the_sessions_account_and_for_a_moment(host: Host) -> None:
    assert host.guess() == PEER
    assert host.guess(account="acc_b") is None
    assert host.guess("ses_2") is None
    host.now += SECONDS
    host.incarnations[PEER] = 1
    assert host.guess() is None, "the host keeps its sessions only since the guess"


def test_a_guess_lasts_for_a_minute_while_the_host_keeps_its_sessions(host: Host) -> None:
    host.incarnations[PEER] = 7
    host.guesses.learn("acc_a", "ses_1", PEER)
    host.now += STEADY_SECONDS - 1
    assert host.guess() == PEER
    host.now += 1
    assert host.guess() is None


@pytest.mark.parametrize("after", [None, 8], ids=["it drains or is silent", "it has joined again"])
def test_a_guess_ends_when_the_host_may_have_lost_the_session(host: Host, after: int | None) -> None:
    host.incarnations[PEER] = 7
    host.guesses.learn("acc_a", "ses_1", PEER)
    host.incarnations.clear()
    if after is not None:
        host.incarnations[PEER] = after
    host.now += SECONDS - 1
    assert host.guess() == PEER
    host.now += 1
    assert host.guess() is None
    host.incarnations[PEER] = 7
    assert host.guess() is None, "it is not made again"


def test_a_clock_that_is_set_back_makes_no_guess_last(host: Host) -> None:
    host.now -= 500
    assert host.guess() is None


def test_only_the_newest_are_kept(host: Host) -> None:
    for number in range(guesses.MOST + 1):
        host.guesses.learn("acc_a", f"ses_{number}", PEER)
    assert host.guess("ses_0") is None
    assert host.guess("ses_1") == PEER


def test_a_guess_never_names_the_host_itself(host: Host) -> None:
    host.guesses.learn("acc_a", "ses_1", ME)
    assert host.guess() is None


def test_a_host_that_has_the_session_makes_no_guess(host: Host) -> None:
    host.guesses.forget("ses_1")
    assert host.guess() is None
