"""Ends connections that another process holds, such as nginx's to sessions and to other hosts. The kernel can do that
(SOCK_DESTROY).

Sources: linux/inet_diag.h and sock_diag.h.
"""

import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address

from buntime.daemon.listening import Listening
from buntime.fleet.neighbours import Endpoint
from buntime.preview import LOWEST_PORT
from buntime.sandboxes.kernel.commands import HostCommandFailed
from buntime.sandboxes.network.netlink import (
    ACKNOWLEDGE,
    DUMP,
    REQUEST,
    SOCKET_DIAGNOSIS,
    answers,
    attribute,
    connected,
    header,
    listed,
    require_done,
)

BY_FAMILY, DESTROY = 20, 21
ASKED = struct.Struct("=BBxxI")  # inet_diag_req_v2 up to the socket: family, protocol, states
SOCKET = slice(4, 52)  # of inet_diag_msg: inet_diag_sockid, with ports and addresses
PORT_THERE, ADDRESS_HERE = slice(2, 4), slice(4, 20)  # of inet_diag_sockid
FILTER, HAS_SOURCE, HAS_DESTINATION = 1, 7, 8
CONDITION = struct.Struct("=BBHBBxxi")  # a step, where it leads; family, length of the prefix, port. Then the address
ANY_PORT = -1
ESTABLISHED, SYN_SENT, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING = 1, 2, 4, 5, 8, 9, 11
STATES = sum(1 << state for state in (ESTABLISHED, SYN_SENT, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING))
FAMILIES = (socket.AF_INET, socket.AF_INET6)  # a socket of IPv6 can be connected to an address of IPv4
FAMILY_OF = {4: socket.AF_INET, 6: socket.AF_INET6}
SIZE_OF: Mapping[int, int] = {socket.AF_INET: 4, socket.AF_INET6: 16}  # bytes of an address


def end_connections(address: str) -> int:
    """Ends all TCP connections from this network namespace to programs' ports of `address`, and returns how many. Both
    ends see a reset. Blocking. Raises HostCommandFailed."""
    return _end_all(_to(IPv4Address(address), ANY_PORT), lambda _, name: _port_there(name) >= LOWEST_PORT)


def end_connections_to(host: Endpoint) -> int:
    """The same for connections to the listener of another host."""
    return _end_all(_to(host.address, host.port), lambda *_: True)


def end_connections_of_edge(edge: Listening) -> int:
    """The same for those that others have made to the edge."""
    addresses = [ip_address(each) for each in edge.addresses]
    packed = {each.packed for each in addresses}
    wildcards = {FAMILY_OF[each.version] for each in addresses if each.is_unspecified}

    def is_meant(family: int, name: bytes) -> bool:
        return family in wildcards or name[ADDRESS_HERE][: SIZE_OF[family]] in packed

    ended = _end_all(_from(edge.port), is_meant)
    return ended if edge.for_hosts is None else ended + _end_all(_from(edge.for_hosts), lambda *_: True)


def _end_all(condition: bytes, is_meant: Callable[[int, bytes], bool]) -> int:
    """`condition`: of the kernel. `is_meant` gets the family, and the kernel's name."""
    try:
        with connected(SOCKET_DIAGNOSIS) as kernel:
            every = ((family, name) for family in FAMILIES for name in _connections(kernel, family, condition))
            found = [each for each in every if is_meant(*each)]
            return sum(_end(kernel, *each) for each in found)
    except OSError as refused:
        raise HostCommandFailed(f"end connections: {refused}") from refused


def _connections(kernel: socket.socket, family: int, condition: bytes) -> Iterator[bytes]:
    """The kernel's name of each."""
    kernel.send(header(BY_FAMILY, REQUEST | DUMP, _asked(family, bytes(48)) + attribute(FILTER, condition)))
    for kind, body in listed(kernel):
        if kind == BY_FAMILY:
            yield body[SOCKET]


def _to(address: IPv4Address | IPv6Address, port: int) -> bytes:
    return _condition(HAS_DESTINATION, FAMILY_OF[address.version], port, address.packed)


def _from(port: int) -> bytes:
    return _condition(HAS_SOURCE, socket.AF_UNSPEC, port, b"")


def _condition(what: int, family: int, port: int, address: bytes) -> bytes:
    step = CONDITION.size + len(address)
    beyond = step + 4  # beyond the end means no
    return CONDITION.pack(what, step, beyond, family, 8 * len(address), port) + address


def _port_there(name: bytes) -> int:
    return int.from_bytes(name[PORT_THERE])


def _end(kernel: socket.socket, family: int, name: bytes) -> bool:
    """Returns False where it has just ended by itself. Raises OSError."""
    kernel.send(header(DESTROY, REQUEST | ACKNOWLEDGE, _asked(family, name)))
    try:
        require_done(*next(answers(kernel)))
    except FileNotFoundError:
        return False
    return True


def _asked(family: int, name: bytes) -> bytes:
    return ASKED.pack(family, socket.IPPROTO_TCP, STATES) + name
