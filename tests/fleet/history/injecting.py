"""Does to a fleet what is planned, and mends it again."""

import signal
import threading
import time
from collections.abc import Callable, Iterable

from tests.fleet.history.planning import Fault, Planned
from tests.fleet.lab.cuts import Cut, Peer
from tests.fleet.lab.fleets import Fleet

LOOK_SECONDS = 0.05
CUTS = {
    Fault.DATABASE: Peer.DATABASE,
    Fault.ARCHIVE: Peer.ARCHIVE,
    Fault.HOSTS: Peer.HOSTS,
    Fault.UNPLUGGED: Peer.ALL,
}


def inject(
    fleet: Fleet, plan: Iterable[Planned], count: Callable[[], int], ended: threading.Event, say: Callable[[str], None]
) -> None:
    """Returns when the plan or the clients are at the end. `count`: operations so far."""
    for fault in plan:
        while count() < fault.at:
            if ended.wait(LOOK_SECONDS):
                return
        say(f"{count()} operations: {fault}")
        _act(fleet, fault)


def mend(fleet: Fleet) -> None:
    """Mends everything, and waits until all hosts are ready."""
    fleet.switch.mend()
    for host in fleet.hosts:
        host.resume()
    fleet.database.start()
    fleet.objects.start()
    for host in fleet.hosts:
        host.start()


def _act(fleet: Fleet, planned: Planned) -> None:
    host = fleet.host(planned.host)
    match planned.fault:
        case Fault.SERVER:
            host.kill()
            time.sleep(planned.seconds)
            host.start()
        case Fault.WATCHDOG:
            host.kill_watchdog()
        case Fault.PAUSE:
            host.pause()
            time.sleep(planned.seconds)
            host.resume()
        case Fault.POWER:
            host.cut_power()
            time.sleep(planned.seconds)
            host.start()
        case Fault.POSTGRESQL | Fault.POSTGRESQL_KILLED:
            killed = planned.fault is Fault.POSTGRESQL_KILLED
            fleet.database.stop(signal.SIGKILL if killed else signal.SIGQUIT)
            time.sleep(planned.seconds)
            fleet.database.start()
        case _:
            cut = Cut(planned.host, CUTS[planned.fault], planned.way)
            fleet.switch.cut(cut)
            time.sleep(planned.seconds)
            fleet.switch.mend([cut])
