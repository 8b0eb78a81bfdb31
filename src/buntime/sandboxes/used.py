"""What the kernel has counted of sessions: processor time, memory, bytes, processes, disk. Blocking, for a thread."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from buntime.measurement import Counted
from buntime.ports import Used
from buntime.sandboxes.kernel.cgroup import Cgroups
from buntime.sandboxes.kernel.cgroup_tree import text_of
from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.kernel.volume import Volumes
from buntime.usage import Counters

INTERFACES = "/sys/class/net"


@dataclass(frozen=True, slots=True)
class Metered:
    """Where the counters of one session are."""

    session: str  # id
    volume: str  # id
    sandbox: str  # id
    interface: str | None  # the host's end of its network; None: no sandbox runs
    parked: Sequence[str] = ()  # runs that wait for a program, and are nobody's yet


type Read[T] = Callable[[Cgroups, Volumes, Sequence[Metered]], dict[str, T]]


def read_all(cgroups: Cgroups, volumes: Volumes, metered: Sequence[Metered]) -> dict[str, Used]:
    """By session."""
    return {one.session: Used(_counters(cgroups, one), _disk(volumes, one.volume)) for one in metered}


def count_all(cgroups: Cgroups, volumes: Volumes, metered: Sequence[Metered]) -> dict[str, Counted]:
    """By session, for those whose sandbox runs."""
    found = {one.session: _counted(cgroups, volumes, one) for one in metered}
    return {session: counted for session, counted in found.items() if counted is not None}


def _counted(cgroups: Cgroups, volumes: Volumes, one: Metered) -> Counted | None:
    counters = _counters(cgroups, one)
    if counters is None:
        return None
    with suppress(OSError):
        received = _statistic(one, "tx_bytes")
        processes = cgroups.session_processes(one.sandbox, one.parked)
        return Counted(counters, received, processes, _disk(volumes, one.volume))
    return None


def _counters(cgroups: Cgroups, one: Metered) -> Counters | None:
    """None where the sandbox has ended."""
    if one.interface is None:
        return None
    with suppress(OSError):
        sent = _statistic(one, "rx_bytes")
        cpu, memory = cgroups.totals(one.sandbox)
        return Counters(one.sandbox, cpu, sent, memory)
    return None


def _statistic(one: Metered, name: str) -> int:
    """Of the host's end of the network, which receives what the session sends."""
    return int(text_of(f"{INTERFACES}/{one.interface}/statistics/{name}"))


def _disk(volumes: Volumes, volume: str) -> int | None:
    with suppress(OSError, HostCommandFailed):
        return volumes.used(volume) if volumes.exists(volume) else 0
    return None
