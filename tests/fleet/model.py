"""A fleet in one process: hosts with their leases, a database whose clock jumps, messages that are late or lost.

A walk makes one choice at each step among what may happen then. What hosts decide is the real code. `Violation` is
raised as soon as a host acts that another may have taken over from.
"""

from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

from buntime.fleet import ownership
from buntime.fleet.budget import BUDGET
from buntime.fleet.lease import Lease, Phase
from buntime.fleet.members import Description, Fenced, Membership
from buntime.fleet.ownership import Ownership
from buntime.fleet.sightings import Sightings
from buntime.session import State
from buntime.testing.members import FakeMembers

SESSION = "ses_1"
AT_ONCE = 3  # messages of one host that are under way
ADVANCES = (0.5, 3.5)  # seconds in which nothing happens
LIVES = (1, 3, 3, 9)  # seconds in which hosts do what they do each second
JUMPS = (-3600.0, 10.0)  # of the database's clock


class Mode(StrEnum):
    WELL = "well"
    SLOW = "slow"  # answers to it take their time
    PAUSED = "paused"


class Violation(AssertionError):
    """Two hosts may act at once, or one acts that has lost its place."""


@dataclass
class Message:
    """A join or a renewal. It is sent, then the database has it, then its answer arrives."""

    incarnation: int  # 0: a join
    sent: float
    answer: int | None = None  # the incarnation that it was made with; 0: refused; None: the database has it not yet


@dataclass
class Host:
    name: str
    lease: Lease = field(default_factory=Lease)
    sightings: Sightings = field(default_factory=Sightings)
    messages: list[Message] = field(default_factory=list)
    disk: dict[str, int] = field(default_factory=dict)  # session → epoch of its files
    served: dict[str, int] = field(default_factory=dict)  # … of those that run since the last comparison
    reading: tuple[int, list[Ownership]] | None = None  # the answer to a report, and the incarnation that made it
    mode: Mode = Mode.WELL


class World:
    def __init__(self, hosts: int = 2) -> None:
        self.now = 1000.0
        self._shift = 0.0
        self._members = FakeMembers(lambda: self.now + self._shift)
        self.hosts = [Host(name) for name in "abc"[:hosts]]
        self.row = Ownership(SESSION, "a", 1, State.DEEP_SLEEP)
        self.hosts[0].disk[SESSION] = 1
        self.taken_over = 0  # how often

    def walk(self, choices: Iterable[int]) -> None:
        """Raises Violation."""
        for choice in choices:
            steps = self._steps()
            steps[choice % len(steps)]()
            self._check()

    # --- what may happen ---

    def _steps(self) -> list[Callable[[], None]]:
        steps: list[Callable[[], None]] = [partial(self._advance, each) for each in ADVANCES]
        steps += [partial(self._live, each) for each in LIVES]
        steps += [partial(self._jump, each) for each in JUMPS]
        for host in self.hosts:
            steps += [partial(self._turn, host, each) for each in Mode if each is not host.mode]
            if host.mode is not Mode.PAUSED:
                steps += self._steps_of(host)
        return steps

    def _steps_of(self, host: Host) -> list[Callable[[], None]]:
        steps: list[Callable[[], None]] = [partial(self._look, host)]
        if len(host.messages) < AT_ONCE:
            steps.append(partial(self._send, host))
        for message in host.messages:
            if message.answer is None:
                steps.append(partial(self._deliver, host, message))
            else:
                steps.append(partial(self._answer, host, message))
            steps.append(partial(host.messages.remove, message))
        if host.lease.phase is Phase.COMPARING:
            steps.append(partial(self._read, host))
        if host.reading:
            steps.append(partial(self._compare, host))
        return steps

    def _advance(self, seconds: float) -> None:
        self.now += seconds

    def _jump(self, seconds: float) -> None:
        self._shift += seconds

    def _turn(self, host: Host, mode: Mode) -> None:
        host.mode = mode

    def _live(self, seconds: int) -> None:
        for _ in range(seconds):
            self._advance(1)
            for host in self.hosts:
                if host.mode is Mode.WELL:
                    self._beat(host)
                    self._look(host)
                elif host.mode is Mode.SLOW and not host.messages:
                    for _ in range(AT_ONCE):
                        self._send(host)
                        self._deliver(host, host.messages[-1])
            self._check()

    def _beat(self, host: Host) -> None:
        """All goes well. The answer comes at once, and what it says is compared a moment later."""
        self._send(host)
        self._deliver(host, host.messages[-1])
        self._answer(host, host.messages[-1])
        if host.reading:
            self._compare(host)
        if host.lease.phase is Phase.COMPARING:
            self._read(host)

    def _send(self, host: Host) -> None:
        host.lease = host.lease.at(self.now)
        incarnation = 0 if host.lease.phase is Phase.OUT else host.lease.incarnation
        host.messages.append(Message(incarnation, self.now))

    def _deliver(self, host: Host, message: Message) -> None:
        if not message.incarnation:
            message.answer = _now(self._members.join(host.name, Description(host.name, "1"))).incarnation
            return
        try:
            _now(self._members.renew(Membership(host.name, message.incarnation), {}))
            message.answer = message.incarnation
        except Fenced:
            message.answer = 0

    def _answer(self, host: Host, message: Message) -> None:
        host.messages.remove(message)
        assert message.answer is not None
        if not message.incarnation:
            lease = host.lease.joined(message.answer, message.sent, self.now)
            if lease is not host.lease:
                host.served, host.sightings = {}, Sightings()
            host.lease = lease
        elif message.answer:
            host.lease = host.lease.renewed(message.answer, message.sent, self.now)
        else:
            host.lease = host.lease.refused(message.incarnation)

    def _read(self, host: Host) -> None:
        host.reading = (host.lease.incarnation, [self.row])

    def _compare(self, host: Host) -> None:
        assert host.reading
        incarnation, rows = host.reading
        host.reading = None
        found = ownership.compare(host.name, host.disk, rows)
        host.lease = host.lease.compared(incarnation, self.now)
        if host.lease.phase is Phase.HOLDING and not host.served:
            host.served = {each: host.disk[each] for each in found.keep}

    def _look(self, host: Host) -> None:
        """Looks at the others, takes over, and claims what the lost one had."""
        if not host.lease.may_act(self.now):
            return
        me = Membership(host.name, host.lease.incarnation)
        others = [each for each in _now(self._members.list()) if each.id != host.name]
        for suspect in host.sightings.look(others, self.now):
            try:
                taken = _now(self._members.take_over(me, suspect))
            except Fenced:
                return
            if taken:
                self.taken_over += 1
                self._check_silence(suspect.id, suspect.incarnation)
                if self.row.host == suspect.id:
                    self.row = Ownership(SESSION, host.name, self.row.epoch + 1, State.DEEP_SLEEP)
                    host.disk[SESSION] = host.served[SESSION] = self.row.epoch

    # --- what must never be ---

    def _check(self) -> None:
        rows = {member.id: member for member in _now(self._members.list())}
        for host in self.hosts:
            if not host.lease.may_act(self.now):
                continue
            if rows[host.name].incarnation != host.lease.incarnation and rows[host.name].taken_over:
                raise Violation(f"{host.name} acts, and was taken over")
            epoch = host.served.get(SESSION)
            if epoch is not None and (self.row.host, self.row.epoch) != (host.name, epoch):
                raise Violation(f"{host.name} serves epoch {epoch} of {self.row}")

    def _check_silence(self, lost: str, incarnation: int) -> None:
        host = next(each for each in self.hosts if each.name == lost)
        silent = host.lease.until + BUDGET.edge + BUDGET.freeze
        if host.lease.incarnation == incarnation and self.now < silent:
            raise Violation(f"{lost} was taken over {silent - self.now} s before all of it is silent")


def _now[T](work: Coroutine[Any, Any, T]) -> T:
    """The result of work that never waits."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    raise AssertionError("a fake waits for something")
