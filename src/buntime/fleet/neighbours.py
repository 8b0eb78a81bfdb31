"""Where the other hosts of a fleet are, and which of them are silent. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from buntime.fleet.members import HostState, Member
from buntime.ports import Peer


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a host listens for the others."""

    address: IPv4Address | IPv6Address
    port: int


@dataclass(frozen=True, slots=True)
class Neighbours:
    """All but this host. `silent`: those whose lease is over, so that they answer nothing."""

    every: frozenset[Endpoint] = frozenset()
    silent: frozenset[Endpoint] = frozenset()


def neighbours(members: Iterable[Member], me: str) -> Neighbours:
    """`me`: the id of this host. Nothing is silent where a host whose lease runs listens now."""
    every, running, mine = set[Endpoint](), set[Endpoint](), set[Endpoint]()
    for each in members:
        if (found := endpoint(each.description.address)) is None:
            continue
        (mine if each.id == me else every).add(found)
        if each.lease_left > 0 and not each.taken_over:
            running.add(found)
    every -= mine
    return Neighbours(frozenset(every), frozenset(every - running))


def steady(members: Iterable[Member]) -> Mapping[Peer, int]:
    """Hosts that keep the sessions that they have, with their incarnations."""
    return {
        Peer(each.id, each.description.address): each.incarnation
        for each in members
        if each.lease_left > 0 and not each.taken_over and each.state is HostState.ACTIVE
    }


def endpoint(address: str) -> Endpoint | None:
    """Of ADDRESS:PORT, as a host's row has it. None: another version wrote it, and it cannot be read."""
    host, _, port = address.rpartition(":")
    try:
        return Endpoint(ip_address(host.strip("[]")), int(port))
    except ValueError:
        return None
