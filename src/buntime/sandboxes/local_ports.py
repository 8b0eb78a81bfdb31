"""Programs that listen on `localhost` alone are reached from outside as well.

One rule of nftables in a sandbox's own network namespace: connections that come in on eth0, to ports that previews can
name, are led to 127.0.0.1, where both kinds of servers answer. By netlink, on the calling thread's namespace: starting
`nft` would cost each sandbox more than the rest of its network.

Sources: linux/netfilter/nf_tables.h; `nft --debug=netlink` of RULES shows these expressions.
"""

import os
import socket
import struct

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

HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
FAMILY = struct.Struct("=BBH")  # nfgenmsg
ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type
NETFILTER = 12  # the netlink family
REQUEST, ACKNOWLEDGE, CREATE, APPEND = 0x001, 0x004, 0x400, 0x800
ERROR, BATCH_BEGIN, BATCH_END = 2, 16, 17
NF_TABLES = 10
NEW_TABLE, NEW_CHAIN, NEW_RULE = (NF_TABLES << 8 | number for number in (0, 3, 6))
IPV4, NESTED, REGISTER = 2, 0x8000, 1
PREROUTING, DSTNAT, ACCEPT = 0, -100, 1
META_INTERFACE, META_PROTOCOL, TRANSPORT_HEADER = 6, 16, 2
EQUAL, AT_LEAST = 0, 5
ANSWER_SECONDS = 5.0


def lead_to_localhost() -> None:
    """Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETFILTER) as kernel:
        kernel.settimeout(ANSWER_SECONDS)
        kernel.bind((0, 0))
        kernel.send(BATCH)
        for _ in range(MESSAGES):
            answer = kernel.recv(1 << 16)
            _, kind, *_ = HEADER.unpack_from(answer)
            number = -struct.unpack_from("=i", answer, HEADER.size)[0] if kind == ERROR else 0
            if number:
                raise OSError(number, os.strerror(number))


def _attribute(kind: int, content: bytes) -> bytes:
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(content), kind) + content + bytes(-len(content) % 4)


def _text(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode() + b"\0")


def _number(kind: int, number: int) -> bytes:
    return _attribute(kind, struct.pack("!i", number))


def _nested(kind: int, *content: bytes) -> bytes:
    return _attribute(kind | NESTED, b"".join(content))


def _expression(name: str, *content: bytes) -> bytes:
    return _nested(1, _text(1, name), _nested(2, *content))


def _value(kind: int, value: bytes) -> bytes:
    return _nested(kind, _attribute(1, value))


def _meta(key: int) -> bytes:
    return _expression("meta", _number(1, REGISTER), _number(2, key))


def _compare(how: int, value: bytes) -> bytes:
    return _expression("cmp", _number(1, REGISTER), _number(2, how), _value(3, value))


def _header(kind: int, flags: int, body: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, flags, 1, 0) + body


def _message(kind: int, flags: int, *attributes: bytes) -> bytes:
    return _header(kind, REQUEST | ACKNOWLEDGE | CREATE | flags, FAMILY.pack(IPV4, 0, 0) + b"".join(attributes))


def _batch(*messages: bytes) -> bytes:
    edge = FAMILY.pack(0, 0, socket.htons(NF_TABLES))
    return b"".join([_header(BATCH_BEGIN, REQUEST, edge), *messages, _header(BATCH_END, REQUEST, edge)])


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
MESSAGES = 3
BATCH = _batch(
    _message(NEW_TABLE, 0, _text(1, TABLE)),
    _message(
        NEW_CHAIN,
        0,
        _text(1, TABLE),
        _text(3, CHAIN),
        _nested(4, _number(1, PREROUTING), _number(2, DSTNAT)),
        _number(5, ACCEPT),
        _text(7, "nat"),
    ),
    _message(NEW_RULE, APPEND, _text(1, TABLE), _text(2, CHAIN), _nested(4, *_EXPRESSIONS)),
)
