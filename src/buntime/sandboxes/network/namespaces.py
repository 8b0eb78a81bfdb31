"""The network of sandboxes: a namespace and a routed veth pair each, one nftables table for all.

A namespace has no name and no mount. The server's file descriptor keeps it alive, and later the processes of its
container do. The veth pair ends with it, so no namespace is ever left behind. The host's end has no address: the
gateway address is on one interface for all, and static neighbour entries on both ends replace ARP. Blocking.
"""

import json
import os
import pwd
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import structlog

from buntime.daemon.listening import Listening
from buntime.egress import Rules, rules_of
from buntime.sandboxes.kernel.commands import HostCommandFailed, call
from buntime.sandboxes.kernel.host import Part
from buntime.sandboxes.network.edge_rules import edge_rules
from buntime.sandboxes.network.host_settings import raise_host_settings
from buntime.sandboxes.network.local_ports import put_session_rules
from buntime.sandboxes.network.put import put_pairs
from buntime.sandboxes.network.read_set import expiring_addresses
from buntime.sandboxes.network.rules import (
    TIMEOUTS,
    TOUCH_SECONDS,
    Learned,
    change,
    elements_of,
    learned_element,
    merged,
    version,
    whole,
)
from buntime.session import DEFAULT_NETWORK

log = structlog.get_logger()

DEFAULT_RULES = rules_of(DEFAULT_NETWORK)

HOST_MAC, SESSION_MAC = "02:62:75:6e:00:01", "02:62:75:6e:00:02"
EDGE_USERS = ("buntime-edge", "www-data")  # nginx's workers; the first of these users that exists
KNOWN = 1024  # addresses of names that one session may reach at a time
SHORTEST, LONGEST = 60, 3600  # seconds that an answered address stays reachable for new connections
MARGIN = 5  # seconds beyond an answer's own time: a program may connect at its end
TOUCH_BLUR = 0.1  # seconds, by which two looks at the same touch may differ
SESSION_SETTINGS = {
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
    "net/ipv4/ip_unprivileged_port_start": "0",
    # No account counts what waits in sockets for ping, so nobody may have one.
    "net/ipv4/ping_group_range": "1 0",
    # Smallest, first and largest buffer of a connection. A connection that nobody accepts can hold the largest, and no
    # account counts it: see local_ports. A larger buffer would be faster over long distances.
    "net/ipv4/tcp_rmem": "4096 131072 2097152",
    "net/ipv4/tcp_wmem": "4096 16384 2097152",
    # No account counts ended connections either.
    "net/ipv4/tcp_max_tw_buckets": "4096",
    # A packet in the middle of a connection never makes an entry: see local_ports.
    "net/netfilter/nf_conntrack_tcp_loose": "0",
    "net/netfilter/nf_conntrack_tcp_timeout_time_wait": "5",
}


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace that no container uses yet."""

    handle: int  # file descriptor

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self.handle}"

    def close(self) -> None:
        os.close(self.handle)


class Network:
    """All sandboxes' connections to the world, for one server. Several threads may call its methods."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._host_ns = -1
        self._mtu = 1500
        self._edge_user: int | None = None
        self._edge_rules = ""
        self._short = False  # whether this kernel takes TIMEOUTS
        self._changing = threading.Lock()  # held while the table, and what is known of it, changes
        self._rules: dict[int, Rules] = {}  # slot → its rules, where they are not the default
        self._learned: dict[int, dict[Learned, float]] = {}  # slot → answered addresses, until when (monotonic)
        self._touches: dict[int, float] = {}  # slot → its last activity, on the monotonic clock
        # setns changes the thread that calls it, so one thread does nothing else
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="netns")

    @property
    def table(self) -> str:
        return f"buntime_{self._part.instance}"

    @property
    def resolver(self) -> str:
        return self._part.resolver

    @property
    def gateway(self) -> str:
        return self._part.gateway

    @property
    def _gateway_interface(self) -> str:
        return f"buntime{self._part.instance}gw"

    def open(self, rules: Mapping[int, Rules], edge: Listening | None = None) -> None:
        """Puts the host settings, the gateway and the rules in force. `rules`: of the slots whose sandboxes may still
        run. `edge`: where its connections are counted.

        Raises HostCommandFailed. No sandbox may start then.
        """
        self._host_ns = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._mtu = _world_mtu()
        self._short = takes_timeouts()
        name = self._gateway_interface
        if not Path(f"/sys/class/net/{name}").exists():
            call(["ip", "-batch", "-"], f"link add {name} type bridge\nlink set {name} addrgenmode none\n")
        addresses = "".join(f"addr replace {address}/32 dev {name}\n" for address in (self.gateway, self.resolver))
        # packets to an address without a sandbox are refused here; the default route would send them out
        nobody = "".join(f"route replace unreachable {network}\n" for network in self._part.networks)
        call(["ip", "-batch", "-"], f"{addresses}link set {name} up\n{nobody}")
        self._edge_user = edge_user()
        self._edge_rules = edge_rules(edge, self._part.interfaces) if edge else ""
        with self._changing:
            self._rules = {slot: rules[slot] for slot in rules if elements_of(self._part.address(slot), rules[slot])}
            self._learned = self._still_known()
            self._put()
        raise_host_settings(self._part.slots)  # after the rules: some belong to modules that these load

    def ensure(self) -> bool:
        """Puts the rules back if somebody has flushed them. Returns whether they were there.

        Debian's nftables.service flushes all rules at each of its restarts. Raises HostCommandFailed.
        """
        with self._changing:
            shown = subprocess.run(
                ["nft", "-t", "list", "table", "inet", self.table], capture_output=True, text=True, check=False
            )
            there = all(f"jump {chain}" in shown.stdout for chain in ("from_session", "to_host", "from_host"))
            if not there:
                self._put()
            return there

    def close(self) -> None:
        """Keeps what running sandboxes need."""
        self._thread.shutdown()
        if self._host_ns >= 0:
            os.close(self._host_ns)

    def remove(self) -> None:
        """For a purge, when no sandbox is left. Idempotent."""
        call(["nft", "-f", "-"], f"table inet {self.table}\ndelete table inet {self.table}\n")
        for link in Path("/sys/class/net").glob(self._part.interfaces):
            if link.name != self._gateway_interface:  # of an ended sandbox that the kernel has not cleared away yet
                with suppress(HostCommandFailed):
                    call(["ip", "link", "del", link.name])
        for network in self._part.networks:
            with suppress(HostCommandFailed):  # it is not there
                call(["ip", "route", "del", "unreachable", str(network)])
        if Path(f"/sys/class/net/{self._gateway_interface}").exists():
            call(["ip", "link", "del", self._gateway_interface])

    # --- rules ---

    def restrict(self, slot: int, rules: Rules) -> None:
        """Takes effect at once, on open connections too. Raises HostCommandFailed; `ensure` tries again."""
        address = self._part.address(slot)
        with self._changing:
            before = self._rules.get(slot)
            if before == rules:
                return
            old = self._elements(slot) if before else {}
            self._learned.pop(slot, None)
            self._rules[slot] = rules
            new = elements_of(address, rules)
            if not new:
                del self._rules[slot]
            if not old and not new:
                return
            try:
                call(["nft", "-f", "-"], change(self.table, old, new))
            except HostCommandFailed:  # somebody has just flushed the rules
                self._put()

    def forget(self, slot: int) -> None:
        """The next sandbox at this address starts with the default rules."""
        if slot in self._rules:
            self.restrict(slot, DEFAULT_RULES)

    def rules_at(self, address: str) -> tuple[int, Rules] | None:
        """The slot of an address and its rules. None where the address belongs to no sandbox."""
        slot = self._part.slot_of(IPv4Address(address))
        return None if slot is None else (slot, self._rules.get(slot, DEFAULT_RULES))

    def restricted(self) -> list[tuple[int, Rules]]:
        """Slots whose rules are not the default."""
        return list(self._rules.items())

    def learn(self, slot: int, rules: Rules, kind: str, addresses: Iterable[IPv4Address], seconds: float) -> bool:
        """Adds addresses that were answered for names. `kind`: "allowed_names" or "denied_names". `rules`: those of
        the slot that the answer was judged by. `seconds`: how long the addresses hold for new connections, at least.

        They are in force when this returns. Returns False, and adds nothing, where the slot has other rules by now or
        too many addresses. Raises OSError.
        """
        lasting, now = max(SHORTEST, min(seconds, LONGEST)) + MARGIN, time.monotonic()
        with self._changing:
            if self._rules.get(slot) != rules:
                return False
            known = {what: end for what, end in self._learned.get(slot, {}).items() if end > now}
            fresh = [what for what in (Learned(kind, a) for a in addresses) if known.get(what, 0.0) < now + seconds]
            if len(known.keys() | set(fresh)) > KNOWN:
                return False
            if fresh:
                session = IPv4Address(self._part.address(slot))
                put_pairs(self.table, kind, session, [what.address for what in fresh], lasting)
            self._learned[slot] = known | dict.fromkeys(fresh, now + lasting)
            return True

    def _put(self) -> None:
        elements = merged(self._elements(slot) for slot in self._rules)
        rules = whole(self.table, self._part, self._edge_user, elements, self._edge_rules, short=self._short)
        call(["nft", "-f", "-"], rules)

    def _elements(self, slot: int) -> dict[str, list[str]]:
        """One slot's elements of all sets, with the addresses that it has learned."""
        address, now = self._part.address(slot), time.monotonic()
        elements = elements_of(address, self._rules[slot])
        for what, end in self._learned.get(slot, {}).items():
            if end > now:
                elements.setdefault(what.set, []).append(learned_element(address, what, end - now))
        return elements

    def _still_known(self) -> dict[int, dict[Learned, float]]:
        """What an earlier server has learned for slots whose rules are still the same."""
        known: dict[int, dict[Learned, float]] = {}
        now, versions = time.monotonic(), {tuple(pair) for pair, _ in _listed(self.table, "passed")}
        for kind in ("allowed_names", "denied_names"):
            for (session, answered), left in _listed(self.table, kind):
                slot = self._part.slot_of(IPv4Address(session))
                rules = None if slot is None else self._rules.get(slot)
                if slot is not None and rules is not None and (session, version(session, rules)) in versions:
                    known.setdefault(slot, {})[Learned(kind, IPv4Address(answered))] = now + left
        return known

    def touched(self) -> set[int]:
        """Slots of sandboxes, suspended ones included, that got data on connections into them since the last call and
        within TOUCH_SECONDS. For one caller. Blocking; takes less than a millisecond for few slots.

        Empty where the kernel cannot tell now. The next call makes up for it.
        """
        before, now = self._touches, time.monotonic()
        try:
            left = expiring_addresses(self.table, "touched")
        except OSError as failed:  # somebody flushed the rules (see `ensure`), or the host is short of something
            log.warning("touches_not_read", reason=str(failed))
            return set()
        self._touches = {
            slot: now - TOUCH_SECONDS + rest
            for address, rest in left.items()
            if (slot := self._part.slot_of(address)) is not None
        }
        return {slot for slot, at in self._touches.items() if at > before.get(slot, 0.0) + TOUCH_BLUR}

    def make(self, slot: int) -> Namespace:
        """A namespace with its `eth0`, connected to the host. Raises HostCommandFailed."""
        return self._thread.submit(self._make, slot).result()

    def _make(self, slot: int) -> Namespace:
        interface = self._part.interface(slot)
        if Path(f"/sys/class/net/{interface}").exists():
            # of an ended sandbox that the kernel has not cleared away yet
            with suppress(HostCommandFailed):
                call(["ip", "link", "del", interface])
        os.unshare(os.CLONE_NEWNET)
        try:
            self._set_up_inside(slot, interface)
            handle = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.setns(self._host_ns, os.CLONE_NEWNET)
        try:
            self._set_up_outside(slot, interface)
        except HostCommandFailed:
            os.close(handle)
            raise
        return Namespace(handle)

    def _set_up_inside(self, slot: int, interface: str) -> None:
        gateway = self._part.gateway
        for name, value in SESSION_SETTINGS.items():
            (Path("/proc/sys") / name).write_text(value)
        _ip(
            f"link add eth0 mtu {self._mtu} address {SESSION_MAC} type veth peer name {interface} "
            f"mtu {self._mtu} address {HOST_MAC} netns {os.getpid()}\n"
            "link set lo up\n"
            f"addr add {self._part.address(slot)}/32 dev eth0\n"
            "link set eth0 up\n"
            f"route add {gateway} dev eth0 scope link\n"
            f"route add default via {gateway} dev eth0 onlink\n"
            f"neigh add {gateway} lladdr {HOST_MAC} dev eth0 nud permanent\n"
        )
        Path("/proc/sys/net/ipv4/conf/eth0/route_localnet").write_text("1")
        put_session_rules()

    def _set_up_outside(self, slot: int, interface: str) -> None:
        address, gateway = self._part.address(slot), self._part.gateway
        _ip(
            f"link set {interface} addrgenmode none\nlink set {interface} up\n"
            f"neigh replace {address} lladdr {SESSION_MAC} dev {interface} nud permanent\n"
            f"route replace {address}/32 dev {interface} src {gateway} scope link\n"
        )


def edge_user() -> int | None:
    """The user id of nginx's workers, which may open connections to sandboxes."""
    for name in EDGE_USERS:
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_uid
    return None


@cache
def takes_timeouts() -> bool:
    """Whether the kernel lets connections of sessions have timeouts of their own (CONFIG_NF_CONNTRACK_TIMEOUT). The
    doctor and `Network.open` both ask at a start."""
    try:
        call(["nft", "--check", "-f", "-"], f"table inet buntime_check {{\n{TIMEOUTS}\n}}\n")
    except HostCommandFailed as refused:
        log.warning("ended_connections_take_room_longer", reason=str(refused))
        return False
    return True


def _listed(table: str, name: str) -> Iterator[tuple[list[Any], float]]:
    """The pairs in a set, each with the seconds that it has left. Yields nothing where the set does not exist."""
    with suppress(HostCommandFailed):
        (found,) = (
            e["set"] for e in json.loads(call(["nft", "-j", "list", "set", "inet", table, name]))["nftables"][1:]
        )
        for element in found.get("elem", ()):
            timed = element.get("elem", {"val": element})
            yield timed["val"]["concat"], timed.get("expires", 0.0)


def _ip(batch: str) -> None:
    """In the calling thread's network namespace, which the child inherits."""
    done = subprocess.run(["ip", "-batch", "-"], input=batch, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostCommandFailed(f"ip: {done.stderr.strip()[-500:]}")


def _world_mtu() -> int:
    """The MTU of the default route's interface: a session's packets must fit through it."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        interface, destination, *_ = line.split()
        if destination == "00000000":
            return int(Path(f"/sys/class/net/{interface}/mtu").read_text())
    return 1500
