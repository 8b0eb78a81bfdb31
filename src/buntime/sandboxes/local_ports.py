"""Programs that listen on `localhost` alone are reached from outside as well.

One rule of nftables in a sandbox's own network namespace: connections that come in on eth0, to ports that previews can
name, are led to 127.0.0.1, where both kinds of servers answer. By netlink, on the calling thread's namespace: starting
`nft` would cost each sandbox more than the rest of its network.

Sources: linux/netfilter/nf_tables.h; `nft --debug=netlink` of RULES shows these expressions.
"""

import socket
import struct

from buntime.sandboxes.nfnetlink import ACKNOWLEDGE, APPEND, CREATE, IPV4, attribute, change, message, nested, text

RULES = """
table ip buntime {
  chain in {
    type nat hook prerouting priority dstnat; policy accept;
    iifname "eth0" tcp dport >= 1024 dnat to 127.0.0.1
  }
}
"""
FIRST_PORT = 1024
TABLE, CHAIN, INTERFACE = "buntime", "in", "eth0"

NEW_TABLE, NEW_CHAIN, NEW_RULE = 0, 3, 6
REGISTER = 1
PREROUTING, DSTNAT, ACCEPT = 0, -100, 1
META_INTERFACE, META_PROTOCOL, TRANSPORT_HEADER = 6, 16, 2
EQUAL, AT_LEAST = 0, 5


def lead_to_localhost() -> None:
    """Raises OSError."""
    change(*MESSAGES)


def _number(kind: int, number: int) -> bytes:
    return attribute(kind, struct.pack("!i", number))


def _expression(name: str, *content: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *content))


def _value(kind: int, value: bytes) -> bytes:
    return nested(kind, attribute(1, value))


def _meta(key: int) -> bytes:
    return _expression("meta", _number(1, REGISTER), _number(2, key))


def _compare(how: int, value: bytes) -> bytes:
    return _expression("cmp", _number(1, REGISTER), _number(2, how), _value(3, value))


def _new(number: int, flags: int, *attributes: bytes) -> bytes:
    return message(number, ACKNOWLEDGE | CREATE | flags, IPV4, *attributes)


_EXPRESSIONS = (
    _meta(META_INTERFACE),
    _compare(EQUAL, INTERFACE.encode().ljust(16, b"\0")),
    _meta(META_PROTOCOL),
    _compare(EQUAL, bytes([socket.IPPROTO_TCP])),
    # two bytes of the header, from the third on: the destination port
    _expression("payload", _number(1, REGISTER), _number(2, TRANSPORT_HEADER), _number(3, 2), _number(4, 2)),
    _compare(AT_LEAST, struct.pack("!H", FIRST_PORT)),
    _expression("immediate", _number(1, REGISTER), _value(2, socket.inet_aton("127.0.0.1"))),
    _expression("nat", _number(1, 1), _number(2, IPV4), _number(3, REGISTER)),
)
MESSAGES = (
    _new(NEW_TABLE, 0, text(1, TABLE)),
    _new(
        NEW_CHAIN,
        0,
        text(1, TABLE),
        text(3, CHAIN),
        nested(4, _number(1, PREROUTING), _number(2, DSTNAT)),
        _number(5, ACCEPT),
        text(7, "nat"),
    ),
    _new(NEW_RULE, APPEND, text(1, TABLE), text(2, CHAIN), nested(4, *_EXPRESSIONS)),
)
