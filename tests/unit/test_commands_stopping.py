"""Signals that arrive while a command runs."""

import os
import signal
import time
from collections.abc import Iterator

import pytest
from buntime_cli.commands.stopping import SIGNALS, Stopped, stoppable, whole


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    assert {number: signal.getsignal(number) for number in SIGNALS} == before


def comes(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.01)  # the interpreter handles signals between two instructions


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_stops_the_work(number: int, status: int) -> None:
    def work() -> None:
        with stoppable():
            comes(number)
            pytest.fail("it went on")

    with pytest.raises(Stopped) as stopped:
        work()
    assert stopped.value.exit_code == status


def test_uninterruptible_work_finishes_before_the_stop() -> None:
    done = []

    def work() -> None:
        with stoppable():
            with whole():
                comes(signal.SIGINT)
                comes(signal.SIGTERM)
                done.append("the session is made")
            done.append("something more")

    with pytest.raises(Stopped):
        work()
    assert done == ["the session is made"]


def test_uninterruptible_work_can_fail_as_usual() -> None:
    def work() -> None:
        with stoppable(), whole():
            comes(signal.SIGINT)
            raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        work()


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable(), whole():
            comes(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
