"""What the operator's metrics show of this host as a member of a fleet. Counts are since the server started."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FleetNumbers:
    lease_seconds: float  # until this host fences itself; infinity: it needs no lease
    renewals: int  # that counted
    fences: int  # how often the host was silenced
    released: int  # sessions that it gave up
    claimed: int  # sessions that it took from nobody, or from a lost host
    shares: int = 0  # questions to the database for shares of rates
    counts: int = 0  # questions to other hosts that count keys


ALONE = FleetNumbers(math.inf, 0, 0, 0, 0)
