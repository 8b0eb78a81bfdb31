"""Which hosts a create goes to: the best of a few, by what hosts report of themselves. Pure.

The best of two at random, and not the best of all: reports are a second old, and all hosts would send their creates to
the same one. The host that is asked has the last word, and then the next one is tried.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random

from buntime.fleet.members import HostState, Member
from buntime.fleet.report import Report, read

FEW = 2  # hosts that are compared


@dataclass(frozen=True, slots=True)
class Rated:
    """A host whose lease runs."""

    id: str
    address: str
    is_draining: bool
    report: Report | None  # None: it cannot be read

    @property
    def takes_creates(self) -> bool:
        return not self.is_draining and self.report is not None and not self.report.is_near_a_limit

    def has(self, image: str) -> bool:
        return not image or (self.report is not None and image in self.report.images)


def rated(members: Iterable[Member]) -> Sequence[Rated]:
    """Those whose lease runs. Make it once for each list of members: it reads all reports."""
    return [
        Rated(each.id, each.description.address, each.state is HostState.DRAINING, read(each.description.capacity))
        for each in members
        if is_leased(each)
    ]


def is_leased(member: Member) -> bool:
    return not member.taken_over and member.lease_left > 0


def candidates(hosts: Sequence[Rated], image: str, me: str, random: Random) -> Sequence[Rated]:
    """All hosts, in the order in which a create should ask them.

    First two at random of those that take creates and have the image, or of all that take creates if none has it. Of
    the two, the one with more room comes first. Of equals, `me` comes first: that saves a hop. Then the others that
    take creates, then those that may refuse, and last those that drain. Among these, too, the image comes first.
    `image`: its id; "" stands for the default one, which every host has.
    """
    shuffled = sorted(random.sample(hosts, len(hosts)), key=lambda host: not host.has(image))
    takers = [host for host in shuffled if host.takes_creates]
    able = [host for host in takers if host.has(image)] or takers
    few = sorted(able[:FEW], key=lambda host: _rank(host, me), reverse=True)
    rest = [host for host in shuffled if not host.takes_creates]
    return [*few, *takers[len(few) :], *sorted(rest, key=lambda host: host.is_draining)]


def _rank(host: Rated, me: str) -> tuple[float, bool]:
    assert host.report is not None
    return round(host.report.room, 1), host.id == me
