"""Does to a fleet what is planned, and mends it again."""

import signal
import threading
import time
from collections.abc import Callable, Iterable

from tests.fleet.history.operations import Happened
from tests.fleet.history.planning import Fault, Planned
from tests.fleet.lab.cuts import Cut, Peer
from tests.fleet.lab.fleets import Fleet
from tests.fleet.lab.hosts import BUNTIME, Host

LOOK_SECONDS = 0.05
INTERRUPTS = 1.0  # seconds between the start of long runs and the fault
DRAIN_SECONDS = 60.0  # for a host to give up everything
CALM_SECONDS = 30.0  # for hosts to be members again, before one drains
CUTS = {
    Fault.DATABASE: Peer.DATABASE,
    Fault.ARCHIVE: Peer.ARCHIVE,
    Fault.HOSTS: Peer.HOSTS,
    Fault.UNPLUGGED: Peer.ALL,
}
INTERRUPTING = (Fault.SERVER, Fault.LOST, Fault.BOTH, Fault.PAUSE, Fault.DATABASE, Fault.UNPLUGGED)

type Say = Callable[[str], None]


class Injecting:
    """`count`: operations so far. `interrupt`: starts runs that last while a fault happens."""

    def __init__(
        self, fleet: Fleet, count: Callable[[], int], interrupt: Callable[[], None], ended: threading.Event, say: Say
    ) -> None:
        self._fleet, self._count, self._interrupt, self._ended, self._say = fleet, count, interrupt, ended, say
        self._began = time.monotonic()
        self.happened: list[Happened] = []

    def run(self, plan: Iterable[Planned]) -> None:
        """Returns when the plan or the clients are at the end."""
        for fault in plan:
            while self._count() < fault.at and not self._ended.wait(LOOK_SECONDS):
                pass
            if self._ended.is_set():
                return
            self._tell(str(fault))
            if fault.fault in INTERRUPTING and fault.seconds:
                self._interrupt()
                self._ended.wait(INTERRUPTS)
            self._note(fault)

    def _note(self, planned: Planned) -> None:
        if planned.fault is Fault.DRAIN:
            self._calm()
        begin = time.time()
        left = self._act(planned)
        self.happened.append(Happened(planned.fault, f"f{planned.host}", begin, time.time(), left))

    def _act(self, planned: Planned) -> int:
        """Returns how many sessions a drained host has left; else 0."""
        fleet, host = self._fleet, self._fleet.host(planned.host)
        match planned.fault:
            case Fault.SERVER | Fault.LOST:
                host.kill()
                self._ended.wait(planned.seconds)
                host.start()
            case Fault.WATCHDOG:
                host.kill_watchdog()
            case Fault.BOTH:
                host.kill_with_watchdog()
                self._ended.wait(planned.seconds)
                host.start()
            case Fault.PAUSE:
                host.pause()
                self._ended.wait(planned.seconds)
                host.resume()
            case Fault.POWER:
                host.cut_power()
                self._ended.wait(planned.seconds)
                host.start()
            case Fault.CLOCK:
                host.step_clock(planned.step)
                self._ended.wait(planned.seconds)
                host.step_clock(0.0)
            case Fault.DRAIN:
                return self._drain(host, int(planned.seconds))
            case Fault.POSTGRESQL | Fault.POSTGRESQL_KILLED:
                killed = planned.fault is Fault.POSTGRESQL_KILLED
                fleet.database.stop(signal.SIGKILL if killed else signal.SIGQUIT)
                self._ended.wait(planned.seconds)
                fleet.database.start()
            case _:
                cut = Cut(planned.host, CUTS[planned.fault], planned.way)
                fleet.switch.cut(cut)
                self._ended.wait(planned.seconds)
                fleet.switch.mend([cut])
        return 0

    def _drain(self, host: Host, within: int) -> int:
        host.output(str(BUNTIME), "hosts", "drain", host.id, "--within", f"{within}")
        sessions = f"sessions WHERE host = '{host.id}' AND state <> 'deleting'"
        deadline, began = time.monotonic() + DRAIN_SECONDS, time.monotonic()
        while (left := self._number(sessions)) and time.monotonic() < deadline and not self._ended.wait(LOOK_SECONDS):
            pass
        host.output(str(BUNTIME), "hosts", "resume", host.id)
        self._tell(f"{host.name} drained for {time.monotonic() - began:.0f} s: {left} sessions left")
        return 0 if self._ended.is_set() else left

    def _calm(self) -> None:
        """Waits until what was broken before is whole again. A host that has joined answers nothing until it has looked
        what it has lost."""
        deadline = time.monotonic() + CALM_SECONDS
        while time.monotonic() < deadline and not self._ended.wait(LOOK_SECONDS):
            if self._number("hosts WHERE taken_over OR lease_until < clock_timestamp()"):
                continue
            if all(host.is_ready() for host in self._fleet.hosts):
                return

    def _number(self, of: str) -> int:
        return int(str(self._fleet.database.execute(f"SELECT count(*) FROM {of}")[0][0]))

    def _tell(self, what: str) -> None:
        self._say(f"{time.monotonic() - self._began:4.0f} s, {self._count()} operations: {what}")


def mend(fleet: Fleet) -> None:
    """Mends everything, and waits until all hosts are ready."""
    fleet.switch.mend()
    for host in fleet.hosts:
        host.resume()
        host.step_clock(0.0)
    fleet.database.start()
    fleet.objects.start()
    for host in fleet.hosts:
        host.start()
        host.output(str(BUNTIME), "hosts", "resume", host.id)
