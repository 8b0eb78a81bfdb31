"""A sandbox's network namespace, and the routed veth pair that connects it to the host. Blocking, but for `clear`.

A namespace has no name and no mount. The server's file descriptor keeps it alive, and later the processes of its
container do. The pair ends with it, so no namespace is ever left behind. The host's end has no address: the gateway
address is on one interface for all, and static neighbour entries on both ends replace ARP.

One more costs the same whatever the number of live ones, as far as the kernel allows. docs/decisions/0030 says what
that needs.
"""

import asyncio
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from buntime.sandboxes.kernel.host import Part
from buntime.sandboxes.kernel.mount_calls import new_proc
from buntime.sandboxes.network import local_ports, rtnetlink
from buntime.sandboxes.network.interfaces import interfaces

HOST_MAC, SESSION_MAC = "02:62:75:6e:00:01", "02:62:75:6e:00:02"
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


class Namespaces:
    """Makes them, for one server. Several threads may call its methods."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._mtu = world_mtu()
        self._host_ns = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        # setns changes the thread that calls it, so these threads do nothing else
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="netns")
        self._clearing = ThreadPoolExecutor(1, thread_name_prefix="netns-clearing")

    def close(self) -> None:
        """Keeps those of running sandboxes."""
        self._thread.shutdown()
        self._clearing.shutdown()
        os.close(self._host_ns)

    def make(self, slot: int) -> Namespace:
        """With its `eth0`, connected to the host. Raises OSError and HostCommandFailed."""
        return self._thread.submit(self._make, slot).result()

    async def clear(self, init: int, *, often: bool) -> None:
        """Says how often the kernel clears the set of `local_ports` in the namespace of a process. `init`: its pidfd.
        Changes nothing after `close`. Raises OSError."""
        try:
            clearing = self._clearing.submit(self._clear, init, often)
        except RuntimeError:
            return
        await asyncio.wrap_future(clearing)

    def _clear(self, init: int, often: bool) -> None:
        os.setns(init, os.CLONE_NEWNET)
        try:
            local_ports.clear(often=often)
        finally:
            os.setns(self._host_ns, os.CLONE_NEWNET)

    def _make(self, slot: int) -> Namespace:
        interface = self._part.interface(slot)
        with new_proc() as proc, rtnetlink.routing() as host:
            rtnetlink.delete_named(host, interface)  # of an ended sandbox that the kernel has not cleared away yet
            os.unshare(os.CLONE_NEWNET)
            try:
                self._set_up_inside(proc, slot, interface)
                handle = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            finally:
                os.setns(self._host_ns, os.CLONE_NEWNET)
            try:
                self._set_up_outside(proc, host, slot, interface)
            except OSError:
                os.close(handle)
                raise
        return Namespace(handle)

    def _set_up_inside(self, proc: int, slot: int, interface: str) -> None:
        gateway = self._part.gateway
        for name, value in SESSION_SETTINGS.items():
            _set(proc, name, value)
        inner = rtnetlink.End("eth0", SESSION_MAC, self._mtu, up=True)
        outer = rtnetlink.End(interface, HOST_MAC, self._mtu, namespace=self._host_ns)
        with rtnetlink.routing() as kernel:
            rtnetlink.apply(kernel, rtnetlink.new_veth(inner, outer), rtnetlink.set_up(rtnetlink.LOOPBACK))
            index = socket.if_nametoindex("eth0")
            rtnetlink.apply(
                kernel,
                rtnetlink.put_address(index, self._part.address(slot)),
                rtnetlink.put_route(index, gateway),
                rtnetlink.put_default_route(index, gateway),
                rtnetlink.put_neighbour(index, gateway, HOST_MAC),
            )
        _set(proc, "net/ipv4/conf/eth0/route_localnet", "1")
        local_ports.put_session_rules()

    def _set_up_outside(self, proc: int, host: rtnetlink.Kernel, slot: int, interface: str) -> None:
        address, index = self._part.address(slot), socket.if_nametoindex(interface)
        # Sessions have no IPv6. With it, the host would have a route for each link in one list, which the kernel walks
        # whenever a link comes or goes.
        with suppress(FileNotFoundError):  # a link with a small MTU has none anyway
            _set(proc, f"net/ipv6/conf/{interface}/disable_ipv6", "1")
        rtnetlink.apply(
            host,
            rtnetlink.set_up(index),
            rtnetlink.put_neighbour(index, address, SESSION_MAC),
            rtnetlink.put_route(index, address, source=self._part.gateway),
        )


def _set(proc: int, name: str, value: str) -> None:
    """A setting of the calling thread's network namespace."""
    setting = os.open(f"sys/{name}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)
    try:
        os.write(setting, value.encode())
    finally:
        os.close(setting)


def world_mtu() -> int:
    """The MTU of the default route's interface: a session's packets must fit through it."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        interface, destination, *_ = line.split()
        if destination == "00000000":
            return int((interfaces() / interface / "mtu").read_text())
    return 1500
