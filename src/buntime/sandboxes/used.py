"""What the kernel has counted of sessions: processor time, memory, bytes of the network, processes, disk.

What reads is blocking, for a thread, but for `read_new`.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from buntime.measurement import Counted
from buntime.ports import Used, Worked
from buntime.sandboxes.kernel.cgroup import Cgroups
from buntime.sandboxes.kernel.cgroup_tree import text_of
from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.kernel.volume import Volumes
from buntime.sandboxes.network.interfaces import interfaces
from buntime.sandboxes.record import Record
from buntime.sandboxes.sandbox import LocalSandbox
from buntime.session import Session
from buntime.usage import Counters


@dataclass(frozen=True, slots=True)
class Metered:
    """Where the counters of one session are."""

    session: str  # id
    volume: str  # id
    sandbox: str  # id
    interface: str | None  # the host's end of its network; None: no sandbox runs
    parked: Sequence[str] = ()  # runs that wait for a program, and are nobody's yet
    connection: int = 0  # which one the server has to the guest
    packets: int = 0  # bytes of what it carried until now


type Read[T] = Callable[[Cgroups, Volumes, Sequence[Metered]], dict[str, T]]


def metered(
    sessions: Sequence[Session],
    running: Mapping[str, LocalSandbox],
    waiting: Mapping[str, Record],
    interface: Callable[[int], str],
) -> list[Metered]:
    """`running`, `waiting`: sandboxes by id. `interface`: that of a slot. For the event loop."""
    found: list[Metered] = []
    for session in sessions:
        sandbox = running.get(session.sandbox)
        record = waiting.get(session.sandbox) if sandbox is None else sandbox.record
        own = None if record is None else interface(record.slot)
        parked = () if sandbox is None else sandbox.parked_runs
        found.append(Metered(session.id, session.volume, session.sandbox, own, parked))
    return found


def with_packets(some: Sequence[Metered], running: Mapping[str, LocalSandbox]) -> list[Metered]:
    """The same with what the server itself exchanged with their guests, which is none of the sessions' doing."""
    found: list[Metered] = []
    for one in some:
        with suppress(OSError):
            sandbox = running.get(one.sandbox)
            connection, packets = (0, 0) if sandbox is None else sandbox.packets()
            found.append(replace(one, connection=connection, packets=packets))
    return found


def read_all(cgroups: Cgroups, volumes: Volumes, metered: Sequence[Metered]) -> dict[str, Used]:
    """By session."""
    return {one.session: Used(_counters(cgroups, one), _disk(volumes, one.volume)) for one in metered}


def read_new(cgroups: Cgroups, sandbox: str, interface: str) -> Used:
    """What was counted of a sandbox before a session gets it, whose volume is empty still.

    A create waits for it. These three files of the kernel take 25 microseconds, and a thread several times as long.
    """
    return Used(_counters(cgroups, Metered("", "", sandbox, interface)), 0)


def count_all(cgroups: Cgroups, volumes: Volumes, metered: Sequence[Metered]) -> dict[str, Counted]:
    """By session, for those whose sandbox runs."""
    found = {one.session: _counted(cgroups, volumes, one) for one in metered}
    return {session: counted for session, counted in found.items() if counted is not None}


def read_work(cgroups: Cgroups, _: Volumes, metered: Sequence[Metered]) -> dict[str, Worked]:
    """By session, without those whose sandbox has ended."""
    found: dict[str, Worked] = {}
    for one in metered:
        if one.interface is not None:
            with suppress(OSError):
                moved = _statistic(one, "rx_bytes") + _statistic(one, "tx_bytes") - one.packets
                source = f"{one.sandbox} {one.connection}"
                found[one.session] = Worked(source, cgroups.totals(one.sandbox)[0], moved)
    return found


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
    return int(text_of(f"{interfaces()}/{one.interface}/statistics/{name}"))


def _disk(volumes: Volumes, volume: str) -> int | None:
    with suppress(OSError, HostCommandFailed):
        return volumes.used(volume) if volumes.exists(volume) else 0
    return None
