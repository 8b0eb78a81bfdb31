"""`buntime hosts drain --wait` on a clock of its own."""

from dataclasses import dataclass

import pytest

from buntime.admin.hosts import wait_until_drained
from buntime.admin.refusals import CommandRefused
from buntime.fleet.hosts import Host, Standing
from buntime.fleet.members import SessionCounts
from buntime.operations import guesses

LOOK_TAKES = 0.01  # seconds until a look sees the host, and the same until it is done


@dataclass
class Fleet:
    """A host whose last session goes at a moment."""

    gone_at: float
    is_draining: bool = True
    standing: Standing = Standing.DRAINING
    now: float = 0.0

    def look(self) -> Host:
        self.now += LOOK_TAKES
        sessions = SessionCounts(asleep=int(self.now < self.gone_at))
        self.now += LOOK_TAKES
        return Host("hst_a", self.standing, self.is_draining, "", "1", 0, None, None, sessions)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def wait(self) -> SessionCounts:
        return wait_until_drained(self.look, lambda: self.now, self.sleep)


@pytest.mark.parametrize("gone_at", [0.0, 0.02, 0.99, 1.0, 5.5])
def test_a_wait_for_a_drain_ends_when_no_other_host_can_believe_that_a_session_is_here(gone_at: float) -> None:
    """Another host may have seen the last session here just before it went."""
    fleet = Fleet(gone_at)
    assert fleet.wait().every == 0
    assert gone_at + guesses.SECONDS <= fleet.now < gone_at + guesses.SECONDS + 2.2


@pytest.mark.parametrize(
    ("fleet", "said"),
    [(Fleet(9, is_draining=False), "was resumed"), (Fleet(9, standing=Standing.LOST), "is lost")],
)
def test_a_wait_for_a_drain_ends_where_nothing_more_will_go(fleet: Fleet, said: str) -> None:
    with pytest.raises(CommandRefused, match=said):
        fleet.wait()
