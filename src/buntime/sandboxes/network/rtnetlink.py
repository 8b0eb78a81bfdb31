"""Messages about links, addresses, routes and neighbours by netlink, each about one of them. Blocking.

Sources: linux/rtnetlink.h, if_link.h, if_addr.h, neighbour.h and veth.h. A link is named by its index, which
`socket.if_nametoindex` finds without asking for others.
"""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from buntime.sandboxes.network.netlink import (
    ACKNOWLEDGE,
    CREATE,
    ERROR,
    EXCLUSIVE,
    HEADER,
    REPLACE,
    REQUEST,
    ROUTE,
    answers,
    attribute,
    connected,
    header,
    nested,
    number,
    require_done,
    send,
    text,
)

NEW_LINK, DELETE_LINK, NEW_ADDRESS, NEW_ROUTE, DELETE_ROUTE, NEW_NEIGHBOUR = 16, 17, 20, 24, 25, 28
LINK = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, which of them change
ADDRESS = struct.Struct("=BBBBI")  # ifaddrmsg: family, length of the prefix, flags, scope, index of the link
ROUTING = struct.Struct("=BBBBBBBBI")  # rtmsg: family, lengths to, from, TOS, table, protocol, scope, type, flags
NEIGHBOUR = struct.Struct("=BxxxiHBB")  # ndmsg: family, index of the link, state, flags, type
RESULT = 4  # bytes before the header that an answer repeats
UP = 1
IPV4, IPV6 = socket.AF_INET, socket.AF_INET6
LINK_ADDRESS, LINK_NAME, LINK_MTU, LINK_INFO, LINK_OF_FAMILY, LINK_NAMESPACE = 1, 3, 4, 18, 26, 28
QUEUES_OUT, QUEUES_IN = 31, 32
INFO_KIND, INFO_CONTENT, VETH_PEER = 1, 2, 1
IPV6_ADDRESSES, NO_ADDRESSES = 8, 1
MAIN_TABLE, BY_BOOT = 254, 3
ANYWHERE, ON_LINK = 0, 253  # scopes of routes
UNICAST, UNREACHABLE = 1, 7  # types of routes
ONLINK_GATEWAY = 4
PERMANENT = 0x80
LOOPBACK = 1  # its index in every network namespace

Kernel = socket.socket


@dataclass(frozen=True, slots=True)
class End:
    """One end of a veth pair. `namespace`: a descriptor of the network namespace that it begins in; without one, the
    calling thread's."""

    name: str
    mac: str
    mtu: int
    namespace: int | None = None
    up: bool = False

    def encoded(self) -> bytes:
        where = b"" if self.namespace is None else number(LINK_NAMESPACE, self.namespace)
        flags = UP if self.up else 0
        return (
            LINK.pack(0, 0, 0, flags, flags)
            + text(LINK_NAME, self.name)
            + attribute(LINK_ADDRESS, _mac(self.mac))
            + number(LINK_MTU, self.mtu)
            # Without these the kernel makes one for each processor, then waits until it may take all but one away.
            + number(QUEUES_OUT, 1)
            + number(QUEUES_IN, 1)
            + where
        )


@contextmanager
def routing() -> Iterator[Kernel]:
    """Messages through it change the calling thread's network namespace."""
    with connected(ROUTE) as kernel:
        yield kernel


def apply(kernel: Kernel, *messages: bytes) -> None:
    """In one system call, one after the other. Those after a failed one are applied nevertheless. Raises the OSError of
    the first that failed: FileExistsError, FileNotFoundError, or one with the kernel's number."""
    # The kernel answers a message that failed anyway, and all of them in their order.
    last = len(messages) - 1
    send(kernel, [_numbered(each, at + 1, acknowledged=at == last) for at, each in enumerate(messages)])
    failed: OSError | None = None
    for kind, body in answers(kernel):
        try:
            require_done(kind, body)
        except OSError as refused:
            failed = failed or refused
        if kind == ERROR and _answered(body) == last + 1:
            break
    if failed is not None:
        raise failed


def exists(name: str) -> bool:
    return _index(name) is not None


def delete_named(kernel: Kernel, name: str) -> None:
    """Leaves a link alone that does not exist, or that the kernel is clearing away."""
    index = _index(name)
    if index is not None:
        with suppress(OSError):
            apply(kernel, delete_link(index))


def new_veth(inner: End, outer: End) -> bytes:
    peer = nested(INFO_CONTENT, nested(VETH_PEER, outer.encoded()))
    about = nested(LINK_INFO, text(INFO_KIND, "veth"), peer)
    return header(NEW_LINK, REQUEST | CREATE | EXCLUSIVE, inner.encoded() + about)


def new_bridge(name: str) -> bytes:
    body = LINK.pack(0, 0, 0, 0, 0) + text(LINK_NAME, name) + nested(LINK_INFO, text(INFO_KIND, "bridge"))
    return header(NEW_LINK, REQUEST | CREATE | EXCLUSIVE, body)


def without_ipv6_addresses(index: int) -> bytes:
    """The link makes none by itself when it is set up."""
    none = nested(LINK_OF_FAMILY, nested(IPV6, attribute(IPV6_ADDRESSES, bytes([NO_ADDRESSES]))))
    return header(NEW_LINK, REQUEST, LINK.pack(0, 0, index, 0, 0) + none)


def set_up(index: int) -> bytes:
    return header(NEW_LINK, REQUEST, LINK.pack(0, 0, index, UP, UP))


def delete_link(index: int) -> bytes:
    return header(DELETE_LINK, REQUEST, LINK.pack(0, 0, index, 0, 0))


def put_address(index: int, address: str) -> bytes:
    """The address alone, without its neighbours. Replaces the same one."""
    packed = IPv4Address(address).packed
    body = ADDRESS.pack(IPV4, 32, 0, ANYWHERE, index) + attribute(2, packed) + attribute(1, packed)
    return header(NEW_ADDRESS, REQUEST | CREATE | REPLACE, body)


def put_route(index: int, address: str, source: str = "") -> bytes:
    """To one address on a link. `source`: which address of this host its packets come from."""
    return _route(_routing(32, ON_LINK), IPv4Address(address), index, source=source)


def put_default_route(index: int, gateway: str) -> bytes:
    """By a gateway that no other route needs to lead to."""
    return _route(_routing(0, ANYWHERE, ONLINK_GATEWAY), None, index, gateway=gateway)


def put_unreachable(network: IPv4Network) -> bytes:
    """Packets to addresses of the network that no other route leads to are refused."""
    return _route(_routing(network.prefixlen, ANYWHERE, kind=UNREACHABLE), network.network_address)


def delete_unreachable(network: IPv4Network) -> bytes:
    body = _routing(network.prefixlen, ANYWHERE, kind=UNREACHABLE) + attribute(1, network.network_address.packed)
    return header(DELETE_ROUTE, REQUEST, body)


def delete_route(index: int, address: str) -> bytes:
    body = _routing(32, ON_LINK) + attribute(1, IPv4Address(address).packed) + number(4, index)
    return header(DELETE_ROUTE, REQUEST, body)


def put_neighbour(index: int, address: str, mac: str) -> bytes:
    """Which stays without being asked for."""
    body = NEIGHBOUR.pack(IPV4, index, PERMANENT, 0, 0) + attribute(1, IPv4Address(address).packed)
    return header(NEW_NEIGHBOUR, REQUEST | CREATE | REPLACE, body + attribute(2, _mac(mac)))


def _route(routing: bytes, to: IPv4Address | None, index: int = 0, gateway: str = "", source: str = "") -> bytes:
    parts = [
        routing,
        attribute(1, to.packed) if to is not None else b"",
        number(4, index) if index else b"",
        attribute(5, IPv4Address(gateway).packed) if gateway else b"",
        attribute(7, IPv4Address(source).packed) if source else b"",
    ]
    return header(NEW_ROUTE, REQUEST | CREATE | REPLACE, b"".join(parts))


def _routing(length: int, scope: int, flags: int = 0, kind: int = UNICAST) -> bytes:
    return ROUTING.pack(IPV4, length, 0, 0, MAIN_TABLE, BY_BOOT, scope, kind, flags)


def _index(name: str) -> int | None:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


def _mac(written: str) -> bytes:
    return bytes.fromhex(written.replace(":", ""))


def _numbered(message: bytes, sequence: int, *, acknowledged: bool) -> bytes:
    _, kind, flags, *_ = HEADER.unpack_from(message)
    return header(kind, flags | (ACKNOWLEDGE if acknowledged else 0), message[HEADER.size :], sequence)


def _answered(body: bytes) -> int:
    """The number of the message that an answer is about."""
    *_, sequence, _ = HEADER.unpack_from(body, RESULT)
    return int(sequence)
