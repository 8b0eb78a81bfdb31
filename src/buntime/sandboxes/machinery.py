"""What all sandboxes of this host share."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from buntime.daemon.tasks import Tasks
from buntime.sandboxes.guest.client import Links
from buntime.sandboxes.images.made import MadeImages
from buntime.sandboxes.kernel.cgroup import Cgroups
from buntime.sandboxes.kernel.huge import Huge
from buntime.sandboxes.kernel.packed import Packed
from buntime.sandboxes.kernel.reclaim import AT_ONCE
from buntime.sandboxes.kernel.volume import Volumes
from buntime.sandboxes.network.namespaces import Network
from buntime.sandboxes.quotas import Quotas
from buntime.sandboxes.sharing import Shared


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
    sync: Shared = field(default_factory=Shared)
    quotas: Quotas = field(init=False)
    reclaims: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    def __post_init__(self) -> None:
        object.__setattr__(self, "quotas", Quotas(self.volumes, self.tasks, self.sync))
