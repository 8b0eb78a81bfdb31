"""Putting elements that expire into a set of nftables, by netlink: a tenth of what starting `nft` costs. Blocking.

Sources: linux/netlink.h, linux/netfilter/nfnetlink.h and nf_tables.h.
"""

import os
import socket
import struct
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address

HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
FAMILY = struct.Struct("=BBH")  # nfgenmsg
ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type
NETFILTER = 12  # the netlink family
REQUEST, ACKNOWLEDGE, CREATE = 0x001, 0x004, 0x400
ERROR = 2
BATCH_BEGIN, BATCH_END = 16, 17
NF_TABLES = 10
NEW_ELEMENTS, DESTROY_ELEMENTS = NF_TABLES << 8 | 12, NF_TABLES << 8 | 30
INET = 1
LIST_TABLE, LIST_SET, LIST_ELEMENTS = 1, 2, 3
ELEMENT, KEY, VALUE, TIMEOUT = 1, 1, 1, 4
NESTED = 0x8000
ANSWER_SECONDS = 5.0
LARGEST_MESSAGE = 1 << 16


def put_pairs(table: str, name: str, first: IPv4Address, seconds_of: Iterable[IPv4Address], seconds: float) -> None:
    """(first, each) in a set of pairs of an `inet` table, to expire then; those that are there already begin anew.

    All or none. Raises OSError, FileNotFoundError where there is no such table or set.
    """
    pairs = [first.packed + second.packed for second in seconds_of]
    timeout = _attribute(TIMEOUT, struct.pack("!Q", int(seconds * 1000)))
    keys = [_nested(KEY, _attribute(VALUE, pair)) for pair in pairs]
    messages = [
        _message(DESTROY_ELEMENTS, 0, _elements(table, name, keys)),
        _message(NEW_ELEMENTS, CREATE, _elements(table, name, [key + timeout for key in keys])),
    ]
    edge = FAMILY.pack(0, 0, socket.htons(NF_TABLES))
    batch = [_header(BATCH_BEGIN, REQUEST, edge), *messages, _header(BATCH_END, REQUEST, edge)]
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETFILTER) as kernel:
        kernel.settimeout(ANSWER_SECONDS)
        kernel.bind((0, 0))
        kernel.send(b"".join(batch))
        answers = _answers(kernel)
        for _ in messages:
            if number := next(answers):
                raise OSError(number, os.strerror(number))


def _answers(kernel: socket.socket) -> Iterator[int]:
    """Error numbers, 0 for each message that was done."""
    while True:
        received, start = kernel.recv(LARGEST_MESSAGE), 0
        while start < len(received):
            length, kind, *_ = HEADER.unpack_from(received, start)
            if kind == ERROR:
                yield -struct.unpack_from("=i", received, start + HEADER.size)[0]
            start += length + -length % 4


def _elements(table: str, name: str, elements: Iterable[bytes]) -> bytes:
    listed = b"".join(_nested(ELEMENT, element) for element in elements)
    return _text(LIST_TABLE, table) + _text(LIST_SET, name) + _nested(LIST_ELEMENTS, listed)


def _message(kind: int, flags: int, attributes: bytes) -> bytes:
    return _header(kind, REQUEST | ACKNOWLEDGE | flags, FAMILY.pack(INET, 0, 0) + attributes)


def _header(kind: int, flags: int, body: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, flags, 1, 0) + body


def _text(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode() + b"\0")


def _nested(kind: int, content: bytes) -> bytes:
    return _attribute(kind | NESTED, content)


def _attribute(kind: int, content: bytes) -> bytes:
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(content), kind) + content + bytes(-len(content) % 4)
