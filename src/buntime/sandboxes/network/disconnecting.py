"""Ends connections that another process holds, such as nginx's to sessions. The kernel can do that (SOCK_DESTROY).

Sources: linux/inet_diag.h and sock_diag.h.
"""

import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Address

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
PORT_THERE = slice(2, 4)  # of inet_diag_sockid
FILTER, HAS_DESTINATION = 1, 8
CONDITION = struct.Struct("=BBHBBxxi4s")  # a step, where it leads; family, length of the prefix, port, address
ESTABLISHED, SYN_SENT, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING = 1, 2, 4, 5, 8, 9, 11
STATES = sum(1 << state for state in (ESTABLISHED, SYN_SENT, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING))
FAMILIES = (socket.AF_INET, socket.AF_INET6)  # a socket of IPv6 can be connected to an address of IPv4


def end_connections(address: str) -> int:
    """Ends all TCP connections from this network namespace to programs' ports of `address`, and returns how many. Both
    ends see a reset. Blocking. Raises HostCommandFailed."""
    try:
        with connected(SOCKET_DIAGNOSIS) as kernel:
            found = [(family, each) for family in FAMILIES for each in _connections(kernel, family, address)]
            return sum(_end(kernel, *each) for each in found)
    except OSError as refused:
        raise HostCommandFailed(f"end connections to {address}: {refused}") from refused


def _connections(kernel: socket.socket, family: int, address: str) -> Iterator[bytes]:
    """The kernel's name of each."""
    step, beyond = CONDITION.size, CONDITION.size + 4  # beyond the end means no
    packed = IPv4Address(address).packed
    to_address = CONDITION.pack(HAS_DESTINATION, step, beyond, socket.AF_INET, 32, -1, packed)
    kernel.send(header(BY_FAMILY, REQUEST | DUMP, _asked(family, bytes(48)) + attribute(FILTER, to_address)))
    for kind, body in listed(kernel):
        name = body[SOCKET]
        if kind == BY_FAMILY and int.from_bytes(name[PORT_THERE]) >= LOWEST_PORT:
            yield name


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
