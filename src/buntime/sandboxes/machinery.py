"""What all sandboxes of this host share."""

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from buntime.daemon.tasks import Tasks
from buntime.daemon.turns import Turns
from buntime.ports import Exits, TellExits
from buntime.sandboxes.guest.client import Links
from buntime.sandboxes.images.made import MadeImages
from buntime.sandboxes.kernel.cgroup import Cgroups
from buntime.sandboxes.kernel.huge import Huge
from buntime.sandboxes.kernel.packed import Packed
from buntime.sandboxes.kernel.reclaim import PageOut
from buntime.sandboxes.kernel.volume import Volumes
from buntime.sandboxes.network.namespaces import Network
from buntime.sandboxes.quotas import Quotas
from buntime.sandboxes.sharing import Shared

MOVERS = 4  # threads; the kernel does one move at a time
RUSH_SECONDS, LONGEST_RUSH = 0.1, 1.0


class Runs:
    """Counts the runs under way on this host."""

    def __init__(self) -> None:
        self.under_way = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1


class Rush:
    """When a session last got a sandbox. Several at short intervals are a rush."""

    def __init__(self) -> None:
        self._claimed_at = -math.inf

    def note_claim(self) -> None:
        self._claimed_at = time.monotonic()

    def seconds_since(self) -> float:
        return time.monotonic() - self._claimed_at

    async def over(self) -> None:
        """Returns when no claim has come for RUSH_SECONDS, or after LONGEST_RUSH. For work that prepares what only a
        later request needs: the creates and first runs of a rush have the processors to themselves."""
        deadline = time.monotonic() + LONGEST_RUSH
        while (left := min(RUSH_SECONDS - self.seconds_since(), deadline - time.monotonic())) > 0:  # noqa: ASYNC110
            await asyncio.sleep(left)


class Reports:
    """Who is told of what happens in sandboxes."""

    def __init__(self) -> None:
        self.exits: TellExits = _nobody


async def _nobody(_: Exits) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Machinery:
    cgroups: Cgroups
    volumes: Volumes
    network: Network
    tasks: Tasks
    links: Links  # to guests
    env: Mapping[str, str]  # for every run; the request may override it
    runs: Runs
    made: MadeImages
    packed: Packed
    huge: Huge
    thaws: Callable[[], int] = lambda: 0  # how often the host's fence has let all sandboxes go on
    sync: Shared = field(default_factory=Shared)
    quotas: Quotas = field(init=False)
    turns: Turns = field(default_factory=Turns)
    rush: Rush = field(default_factory=Rush)
    reports: Reports = field(default_factory=Reports)
    # The kernel may let a move of a process wait. Long work in the loop's own threads must not hold up a run's.
    movers: Executor = field(default_factory=lambda: ThreadPoolExecutor(MOVERS, thread_name_prefix="cgroups"))
    pages: PageOut = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "quotas", Quotas(self.volumes, self.tasks, self.sync))
        object.__setattr__(self, "pages", PageOut(self.tasks))
