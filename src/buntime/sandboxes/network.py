"""The network of sandboxes: a namespace and a routed veth pair each, one nftables table for all.

A namespace has no name and no mount: it lives as long as a file descriptor of ours, then as long as
the processes of its container; the veth pair dies with it. So nothing of it can be left behind. The
host's end has no address: the gateway address is on one interface of ours, and static neighbour
entries on both ends make ARP needless. Blocking; see `Network.make` for its thread.
"""

import os
import subprocess
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import structlog

from buntime.sandboxes.commands import HostCommandFailed, call
from buntime.sandboxes.host import Part
from buntime.sandboxes.nftables_set import expiring_addresses

log = structlog.get_logger()

HOST_MAC, SESSION_MAC = "02:62:75:6e:00:01", "02:62:75:6e:00:02"
FLOWS = 512  # connections of one sandbox to the world at a time: the table of all is the host's
QUESTIONS = 100  # of one sandbox to the name server, a second: each takes a place in the host's table of connections
NAME_STREAMS = 4  # connections of one sandbox to the name server, which serves 20 in all
TOUCH_SECONDS = 5.0  # that a touch is remembered: looks at them come more often
TOUCH_BLUR = 0.1  # seconds, by which two looks at the same touch may differ
# Never reachable, whatever a session is allowed: this host and networks that are not the public internet.
UNREACHABLE = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
]
# Settings of the host that must be so; what they were is left as it is when it is enough.
HOST_SETTINGS = {
    "net/ipv4/ip_forward": 1,
    "fs/inotify/max_user_instances": 65536,  # namespaces of all sessions share root's number
    "fs/inotify/max_user_watches": 1048576,
    "kernel/pid_max": 4194304,
}
SESSION_SETTINGS = {
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
    "net/ipv4/ip_unprivileged_port_start": "0",
    "net/ipv4/ping_group_range": "0 0",
}


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace that is not used by a container yet."""

    handle: int  # file descriptor

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self.handle}"

    def close(self) -> None:
        os.close(self.handle)


class Network:
    """All sandboxes' connections to the world, for one server."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._host_ns = -1
        self._mtu = 1500
        self._restricted: set[int] = set()
        self._touches: dict[int, float] = {}  # slot → when it was touched last, on the monotonic clock
        # setns changes the thread that calls it: one thread is set apart for that
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="netns")

    @property
    def table(self) -> str:
        return f"buntime_{self._part.instance}"

    @property
    def _gateway_interface(self) -> str:
        return f"buntime{self._part.instance}gw"

    def open(self, no_egress: Iterable[int]) -> None:
        """Host settings, gateway and rules. `no_egress`: slots of sandboxes that may reach nothing.

        Raises HostCommandFailed: then no sandbox may start.
        """
        self._host_ns = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._mtu = _world_mtu()
        for name, wanted in HOST_SETTINGS.items():
            setting = Path("/proc/sys") / name
            if int(setting.read_text()) < wanted:
                setting.write_text(str(wanted))
        name = self._gateway_interface
        if not Path(f"/sys/class/net/{name}").exists():
            call(["ip", "-batch", "-"], f"link add {name} type bridge\nlink set {name} addrgenmode none\n")
        call(["ip", "-batch", "-"], f"addr replace {self._part.gateway}/32 dev {name}\nlink set {name} up\n")
        self._restricted = set(no_egress)
        call(["nft", "-f", "-"], self.rules())

    def ensure(self) -> bool:
        """Puts the rules in force again where somebody has flushed them; whether they were there.

        Debian's nftables.service does that at each of its restarts. Raises HostCommandFailed.
        """
        there = subprocess.run(["nft", "-t", "list", "table", "inet", self.table], capture_output=True, check=False)
        if there.returncode:
            call(["nft", "-f", "-"], self.rules())
        return not there.returncode

    def close(self) -> None:
        """Leaves what running sandboxes need."""
        self._thread.shutdown()
        if self._host_ns >= 0:
            os.close(self._host_ns)

    def remove(self) -> None:
        """For a purge, when no sandbox is left. Idempotent."""
        call(["nft", "-f", "-"], f"table inet {self.table}\ndelete table inet {self.table}\n")
        for link in Path("/sys/class/net").glob(self._part.interfaces):
            if link.name != self._gateway_interface:  # of sandboxes that have ended: the kernel takes its time
                with suppress(HostCommandFailed):
                    call(["ip", "link", "del", link.name])
        if Path(f"/sys/class/net/{self._gateway_interface}").exists():
            call(["ip", "link", "del", self._gateway_interface])

    def rules(self) -> str:
        """The whole table, put in force in one step. What a session may not reach refuses at once instead of
        letting its programs wait."""
        ours, blocked = self._part.interfaces, ", ".join(map(self._part.address, sorted(self._restricted)))
        elements = f"elements = {{ {blocked} }}" if blocked else ""
        too_often = f"limit rate over {QUESTIONS}/second burst {QUESTIONS} packets"
        return f"""
table inet {self.table}
delete table inet {self.table}
table inet {self.table} {{
  set unreachable {{ type ipv4_addr; flags interval; elements = {{ {", ".join(UNREACHABLE)} }}; }}
  set no_egress {{ type ipv4_addr; {elements}; }}
  set names {{ type ipv4_addr; flags dynamic,timeout; timeout 1m; size 65535; }}
  set name_streams {{ type ipv4_addr; flags dynamic; size 65535; }}
  set flows {{ type ipv4_addr; flags dynamic; size 65535; }}
  set touched {{ type ipv4_addr; flags dynamic,timeout; timeout {TOUCH_SECONDS:.0f}s; size 65535; }}
  chain spoofed {{
    type filter hook prerouting priority -310; policy accept;
    iifname "{ours}" meta nfproto ipv6 drop
    iifname "{ours}" fib saddr . iif oif eq 0 drop
  }}
  chain forward {{
    type filter hook forward priority -10; policy accept;
    iifname "{ours}" jump from_session
    oifname "{ours}" jump to_session
  }}
  chain refused {{
    limit rate 2000/second reject with icmpx admin-prohibited
    drop
  }}
  chain from_session {{
    ip saddr @no_egress jump refused
    ip daddr @unreachable jump refused
    fib daddr type != unicast drop
    tcp dport {{ 25, 53, 853 }} jump refused
    udp dport {{ 53, 853 }} jump refused
    oifname "{ours}" jump refused
    ct state new add @flows {{ ip saddr ct count over {FLOWS} }} drop
  }}
  chain to_session {{
    ct state established,related accept
    drop
  }}
  chain input {{
    type filter hook input priority -10; policy accept;
    iifname "{ours}" jump to_host
  }}
  chain to_host {{
    ip saddr @no_egress meta l4proto {{ tcp, udp }} th dport 53 jump refused
    ip saddr @no_egress ct state new jump refused
    # each packet: questions that come from one port are one connection to the kernel
    meta l4proto udp add @names {{ ip saddr {too_often} }} drop
    meta l4proto != udp ct state new add @names {{ ip saddr {too_often} }} drop
    tcp dport 53 ct state new add @name_streams {{ ip saddr ct count over {NAME_STREAMS} }} drop
    ip daddr {self._part.gateway} udp dport 53 accept
    ip daddr {self._part.gateway} tcp dport 53 accept
    ct state established,related accept
    jump refused
  }}
  chain touching {{
    type filter hook output priority 0; policy accept;
    # data, not keep-alives and acknowledgements; on connections into the session, not those that it opened; and not
    # what the guest is told, which is below these ports
    oifname "{ours}" tcp dport 1024-65535 tcp flags & psh == psh ct direction original update @touched {{ ip daddr }}
  }}
  chain to_world {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {self._part.network} oifname != "{ours}" masquerade
  }}
}}
"""

    def touched(self) -> set[int]:
        """Slots of sandboxes that were sent data on connections into them since the last call, at most TOUCH_SECONDS
        ago; suspended ones too. For one caller. Blocking, below a millisecond where few are.

        Empty where the kernel does not tell them just now: the next call does.
        """
        before, now = self._touches, time.monotonic()
        try:
            left = expiring_addresses(self.table, "touched")
        except OSError as failed:  # somebody flushed the rules, see `ensure`; or the host is short of something
            log.warning("touches_not_read", reason=str(failed))
            return set()
        self._touches = {_slot(self._part, address): now - TOUCH_SECONDS + rest for address, rest in left.items()}
        return {slot for slot, at in self._touches.items() if at > before.get(slot, 0.0) + TOUCH_BLUR}

    def make(self, slot: int) -> Namespace:
        """A namespace with its `eth0`, and the host's end ready. Raises HostCommandFailed."""
        return self._thread.submit(self._make, slot).result()

    def _make(self, slot: int) -> Namespace:
        part, interface = self._part, self._part.interface(slot)
        address = part.address(slot)
        if Path(f"/sys/class/net/{interface}").exists():
            # of a sandbox that has ended: the kernel takes its time to clear a namespace away
            with suppress(HostCommandFailed):
                call(["ip", "link", "del", interface])
        os.unshare(os.CLONE_NEWNET)
        try:
            for name, value in SESSION_SETTINGS.items():
                (Path("/proc/sys") / name).write_text(value)
            _ip(
                f"link add eth0 mtu {self._mtu} address {SESSION_MAC} type veth peer name {interface} "
                f"mtu {self._mtu} address {HOST_MAC} netns {os.getpid()}\n"
                "link set lo up\n"
                f"addr add {address}/32 dev eth0\n"
                "link set eth0 up\n"
                f"route add {part.gateway} dev eth0 scope link\n"
                f"route add default via {part.gateway} dev eth0 onlink\n"
                f"neigh add {part.gateway} lladdr {HOST_MAC} dev eth0 nud permanent\n"
            )
            handle = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.setns(self._host_ns, os.CLONE_NEWNET)
        try:
            _ip(
                f"link set {interface} addrgenmode none\nlink set {interface} up\n"
                f"neigh replace {address} lladdr {SESSION_MAC} dev {interface} nud permanent\n"
                f"route replace {address}/32 dev {interface} src {part.gateway} scope link\n"
            )
        except HostCommandFailed:
            os.close(handle)
            raise
        return Namespace(handle)

    def forget(self, slot: int) -> None:
        """Nothing that was set for a sandbox may apply to the next one at its address."""
        if slot in self._restricted:
            self.set_egress(slot, True)

    def set_egress(self, slot: int, allowed: bool) -> None:
        """At once, for open connections too."""
        if allowed:
            self._restricted.discard(slot)
        else:
            self._restricted.add(slot)
        address = self._part.address(slot)
        verb = "delete" if allowed else "add"
        element = f"element inet {self.table} no_egress {{ {address} }}"
        # add first: deleting what is not there is an error
        call(["nft", "-f", "-"], f"add {element}\n{verb} {element}\n")


def _slot(part: Part, address: IPv4Address) -> int:
    return int(address) - int(part.network[2])


def _ip(batch: str) -> None:
    """On the calling thread: the child inherits its network namespace."""
    done = subprocess.run(["ip", "-batch", "-"], input=batch, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostCommandFailed(f"ip: {done.stderr.strip()[-500:]}")


def _world_mtu() -> int:
    """Of the interface that the default route uses, so that a session's packets fit through it."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        interface, destination, *_ = line.split()
        if destination == "00000000":
            return int(Path(f"/sys/class/net/{interface}/mtu").read_text())
    return 1500
