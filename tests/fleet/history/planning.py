"""Which faults happen to a fleet, and when. Pure: a seed has one plan."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from tests.fleet.lab.cuts import Way


class Fault(StrEnum):
    SERVER = "server"  # SIGKILL, and a start later
    LOST = "lost"  # SIGKILL, and no start until the others have its sessions
    WATCHDOG = "watchdog"  # SIGKILL
    BOTH = "both"  # SIGKILL of server and watchdog at once, and a start later
    PAUSE = "pause"  # SIGSTOP of everything on a host, and SIGCONT later
    POWER = "power"  # everything on a host ends at once, and boots later
    DATABASE = "database"  # a host cannot reach PostgreSQL
    ARCHIVE = "archive"  # a host cannot reach S3
    HOSTS = "hosts"  # a host cannot reach the others
    UNPLUGGED = "unplugged"  # a host reaches nothing, and no client reaches it
    CLOCK = "clock"  # a host's clock is stepped, and later back
    DRAIN = "drain"  # `buntime hosts drain` until no session is left, then `resume`
    POSTGRESQL = "postgresql"  # a restart
    POSTGRESQL_KILLED = "postgresql-killed"  # SIGKILL of all its processes, and a start


# Seconds that each may last. Some are longer than a lease, and some shorter.
LASTS: dict[Fault, Sequence[float]] = {
    Fault.SERVER: (0.0, 1.0, 14.0),
    Fault.LOST: (20.0,),
    Fault.WATCHDOG: (0.0,),
    Fault.BOTH: (0.0, 1.0, 14.0),
    Fault.PAUSE: (3.0, 14.0, 20.0),
    Fault.POWER: (0.0, 14.0),
    Fault.DATABASE: (3.0, 14.0, 20.0),
    Fault.ARCHIVE: (2.0, 10.0),
    Fault.HOSTS: (2.0, 12.0),
    Fault.UNPLUGGED: (3.0, 16.0),
    Fault.CLOCK: (3.0, 10.0),
    Fault.DRAIN: (0.0, 3.0),  # after which what is awake is put to sleep
    Fault.POSTGRESQL: (0.0, 3.0),
    Fault.POSTGRESQL_KILLED: (0.0, 3.0),
}
WITH_A_WAY = (Fault.DATABASE, Fault.ARCHIVE, Fault.HOSTS, Fault.UNPLUGGED)
STEPS = (-7200.0, -30.0, 30.0, 7200.0)  # seconds
OF_ONE_HOST = (  # that it survives
    Fault.SERVER,
    Fault.WATCHDOG,
    Fault.BOTH,
    Fault.PAUSE,
    Fault.POSTGRESQL,
    Fault.POSTGRESQL_KILLED,
)


@dataclass(frozen=True, slots=True)
class Planned:
    at: int  # begins when so many operations have ended
    fault: Fault
    host: int
    seconds: float
    way: Way = Way.BOTH
    step: float = 0.0  # of a clock

    def __str__(self) -> str:
        way = f" ({self.way})" if self.fault in WITH_A_WAY else ""
        step = f" by {self.step:+.0f} s" if self.fault is Fault.CLOCK else ""
        return f"{self.fault}{way} of f{self.host}{step} for {self.seconds:.0f} s"


def planned(seed: str, faults: Sequence[Fault], hosts: int, operations: int, every: int) -> list[Planned]:
    """One fault after each `every` operations; the faults take turns in a random order. A cut has a turn for each way.
    None comes at the end."""
    turns = [(fault, way) for fault in faults for way in (Way if fault in WITH_A_WAY else (Way.BOTH,))]
    rng, plan, turn = random.Random(seed), list[Planned](), list[tuple[Fault, Way]]()
    for at in range(every, operations - every // 2, every):
        turn = turn or rng.sample(turns, len(turns))
        if not turn:
            break
        fault, way = turn.pop()
        step = rng.choice(STEPS) if fault is Fault.CLOCK else 0.0
        plan.append(Planned(at, fault, rng.randint(1, hosts), rng.choice(LASTS[fault]), way, step))
    return plan
