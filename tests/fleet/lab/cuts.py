"""Which packets the bridge of a fleet loses. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from tests.fleet.lab.places import DATABASE_PORT, MOST_HOSTS, Place


class Peer(StrEnum):
    """What a host is cut off from."""

    DATABASE = "database"
    ARCHIVE = "archive"
    HOSTS = "hosts"  # all other hosts
    ALL = "all"  # clients too


class Way(StrEnum):
    """Which packets are lost."""

    BOTH = "both"
    OUT = "out"  # those that the host sends
    IN = "in"  # those that it should get


@dataclass(frozen=True, slots=True)
class Cut:
    host: int
    peer: Peer
    way: Way = Way.BOTH


def rules(place: Place, cuts: Iterable[Cut]) -> str:
    """For `nft -f`. Replaces the cuts that were there. Senders notice nothing, as on a broken cable."""
    table, every = f"bridge {place.bridge}", list(cuts)
    lost = "\n".join(line for cut in every if cut.way is not Way.IN for line in _matches(place, cut, "iifname", "d"))
    kept_out = "\n".join(
        line for cut in every if cut.way is not Way.OUT for line in _matches(place, cut, "oifname", "s")
    )
    return f"""table {table}
delete table {table}
table {table} {{
  chain from_hosts {{
    type filter hook prerouting priority -300; policy accept;
{lost}
  }}
  chain to_hosts {{
    type filter hook postrouting priority 300; policy accept;
{kept_out}
  }}
}}
"""


def _matches(place: Place, cut: Cut, interface: str, end: str) -> Iterator[str]:
    """`end`: which end of a packet the peer is, d (destination) or s (source)."""
    start = f'    {interface} "{place.link(cut.host)}"'
    if cut.peer is Peer.ALL:
        yield f"{start} drop"
    elif cut.peer is Peer.HOSTS:
        others = (place.address(host) for host in range(1, MOST_HOSTS + 1) if host != cut.host)
        yield f"{start} ip {end}addr {{ {', '.join(others)} }} drop"
    else:
        port = DATABASE_PORT if cut.peer is Peer.DATABASE else place.archive_port
        yield f"{start} ip {end}addr {place.services} tcp {end}port {port} drop"
