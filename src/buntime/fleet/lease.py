"""One host's lease by its own clock. Pure.

All times are seconds of the host's CLOCK_BOOTTIME, which goes on while the machine is suspended. A renewal counts from
when it was *sent*: the database cannot have it earlier, so its lease cannot end earlier than this one plus the slack of
the budget. Nothing that arrives late makes a lapsed lease run again. The host joins anew, with another incarnation, and
compares the epochs of all sessions that it holds before it acts.
"""

import math
from dataclasses import dataclass, replace
from enum import StrEnum

from buntime.fleet.budget import BUDGET


class Phase(StrEnum):
    OUT = "out"  # fenced: it must be silent, and may join
    COMPARING = "comparing"  # a member that must still find out what it has lost
    HOLDING = "holding"  # it may act


@dataclass(frozen=True, slots=True)
class Lease:
    """Each method returns the lease afterwards. A caller that sees `phase` become OUT fences the host."""

    phase: Phase = Phase.OUT
    incarnation: int = 0  # the newest that this host has had
    until: float = -math.inf

    def may_act(self, now: float) -> bool:
        return self.phase is Phase.HOLDING and now < self.until

    def joined(self, incarnation: int, sent: float, now: float) -> "Lease":
        """The answer to a join. One that comes late, or after that to a later join, changes nothing."""
        if incarnation <= self.incarnation:
            return self
        return Lease(Phase.COMPARING, incarnation, sent + BUDGET.fence).at(now)

    def compared(self, incarnation: int, now: float) -> "Lease":
        """The host knows what it has lost since before this incarnation, and has given it up."""
        lease = self.at(now)
        if lease.phase is not Phase.COMPARING or incarnation != lease.incarnation:
            return lease
        return replace(lease, phase=Phase.HOLDING)

    def renewed(self, incarnation: int, sent: float, now: float) -> "Lease":
        """The answer to a renewal that the database has taken."""
        lease = self.at(now)
        if lease.phase is Phase.OUT or incarnation != lease.incarnation:
            return lease
        return replace(lease, until=max(lease.until, sent + BUDGET.fence)).at(now)

    def refused(self, incarnation: int) -> "Lease":
        """The database says that this incarnation is over."""
        return replace(self, phase=Phase.OUT) if incarnation == self.incarnation else self

    def at(self, now: float) -> "Lease":
        """A moment later: OUT where it has lapsed."""
        return self if now < self.until else replace(self, phase=Phase.OUT)
