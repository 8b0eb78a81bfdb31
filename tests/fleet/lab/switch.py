"""The network of a fleet: a bridge, a network namespace for each host, and a way to the world. Idempotent."""

import subprocess
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from tests.fleet.lab.cuts import Cut, rules
from tests.fleet.lab.places import Place

NAMESPACES = Path("/run/netns")
INTERFACES = Path("/sys/class/net")
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


class Switch:
    def __init__(self, place: Place) -> None:
        self._place = place
        self._cuts: set[Cut] = set()

    def put_up(self) -> None:
        place = self._place
        if not (INTERFACES / place.bridge).exists():
            _ip("link", "add", place.bridge, "type", "bridge")
        _ip("addr", "replace", f"{place.services}/{place.network.prefixlen}", "dev", place.bridge)
        _ip("link", "set", place.bridge, "up")
        FORWARDING.write_text("1")
        _nft(_way_out(place))

    def connect(self, host: int) -> None:
        """Makes a host's network namespace, with its link to the bridge."""
        place, name = self._place, self._place.namespace(host)
        if not (NAMESPACES / name).exists():
            _ip("netns", "add", name)
            self._unlink(host)  # of a namespace that was deleted by hand, and still has users
            _ip("link", "add", place.link(host), "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "set", place.link(host), "master", place.bridge, "up")
        network = f"{place.address(host)}/{place.network.prefixlen}"
        for command in (
            ("link", "set", "lo", "up"),
            ("addr", "replace", network, "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("route", "replace", "default", "via", place.services),
        ):
            _ip("-n", name, *command)

    def disconnect(self, host: int) -> None:
        """Removes the link, and the namespace with the packet rules and interfaces in it.

        The kernel keeps a namespace without a name while something uses it, such as a connection with bytes that its
        peer has not confirmed. The link would stay with it for minutes.
        """
        name = self._place.namespace(host)
        self._unlink(host)
        if (NAMESPACES / name).exists():
            _ip("netns", "del", name)

    def cut(self, cut: Cut) -> None:
        """In force when it returns."""
        self._put(self._cuts | {cut})

    def mend(self, cuts: Iterable[Cut] | None = None) -> None:
        """Mends these cuts; by default, all."""
        self._put(set() if cuts is None else self._cuts - set(cuts))

    def take_down(self) -> None:
        for host, name in enumerate(self._place.namespaces(), 1):
            self.disconnect(host)
            assert not (NAMESPACES / name).exists()
        for family in ("bridge", "inet"):
            table = f"{family} {self._place.bridge}"
            _nft(f"table {table}\ndelete table {table}\n")
        if (INTERFACES / self._place.bridge).exists():
            _ip("link", "del", self._place.bridge)

    def _unlink(self, host: int) -> None:
        if (INTERFACES / self._place.link(host)).exists():
            with suppress(subprocess.CalledProcessError):  # the kernel was faster
                _ip("link", "del", self._place.link(host))

    def _put(self, cuts: set[Cut]) -> None:
        _nft(rules(self._place, cuts))
        self._cuts = cuts


def _way_out(place: Place) -> str:
    table = f"inet {place.bridge}"
    return f"""table {table}
delete table {table}
table {table} {{
  chain to_world {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {place.network} oifname != "{place.bridge}" masquerade
  }}
}}
"""


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _nft(text: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True, capture_output=True)
