"""What the kernel has counted of sessions: processor time, memory, bytes sent, disk. Blocking, for a thread."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from buntime.ports import Used
from buntime.sandboxes.kernel.cgroup import Cgroups
from buntime.sandboxes.kernel.cgroup_tree import text_of
from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.kernel.volume import Volumes
from buntime.usage import Counters

INTERFACES = Path("/sys/class/net")


@dataclass(frozen=True, slots=True)
class Metered:
    """Where the counters of one session are."""

    session: str  # id
    volume: str  # id
    sandbox: str  # id
    interface: str | None  # the host's end of its network; None: no sandbox runs


def read_all(cgroups: Cgroups, volumes: Volumes, metered: Sequence[Metered]) -> dict[str, Used]:
    """By session."""
    return {one.session: Used(_counters(cgroups, one), _disk(volumes, one.volume)) for one in metered}


def _counters(cgroups: Cgroups, one: Metered) -> Counters | None:
    """None where the sandbox has ended."""
    if one.interface is None:
        return None
    with suppress(OSError):
        # what the session sends is what the host's end receives
        sent = int(text_of(INTERFACES / one.interface / "statistics" / "rx_bytes"))
        cpu, memory = cgroups.totals(one.sandbox)
        return Counters(one.sandbox, cpu, sent, memory)
    return None


def _disk(volumes: Volumes, volume: str) -> int | None:
    with suppress(OSError, HostCommandFailed):
        return volumes.used(volume) if volumes.exists(volume) else 0
    return None
