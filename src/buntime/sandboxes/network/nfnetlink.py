"""Messages to nftables by netlink, for changes too frequent for `nft`, which costs ten times as much. Blocking.

Sources: linux/netlink.h, linux/netfilter/nfnetlink.h and nf_tables.h.
"""

import os
import socket
import struct
from collections.abc import Iterator

HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
FAMILY = struct.Struct("=BBH")  # nfgenmsg
ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type
NETFILTER = 12  # the netlink family
REQUEST, ACKNOWLEDGE, DUMP, CREATE, APPEND = 0x001, 0x004, 0x300, 0x400, 0x800
ERROR, DONE, BATCH_BEGIN, BATCH_END = 2, 3, 16, 17
NF_TABLES = 10
INET, IPV4 = 1, 2
NESTED = 0x8000
ANSWER_SECONDS = 5.0
LARGEST_MESSAGE = 1 << 16


def change(*messages: bytes) -> None:
    """Applies all messages or none, in the calling thread's network namespace. Raises OSError; FileNotFoundError where
    a message names something that does not exist."""
    edge = FAMILY.pack(0, 0, socket.htons(NF_TABLES))
    with connected() as kernel:
        kernel.send(b"".join([header(BATCH_BEGIN, REQUEST, edge), *messages, header(BATCH_END, REQUEST, edge)]))
        acknowledged = 0
        for kind, body in answers(kernel):
            require_done(kind, body)
            acknowledged += kind == ERROR
            if acknowledged == len(messages):
                return


def connected() -> socket.socket:
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETFILTER)
    kernel.settimeout(ANSWER_SECONDS)
    kernel.bind((0, 0))
    return kernel


def answers(kernel: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Yields type and body of each message, without end."""
    while True:
        received, start = kernel.recv(LARGEST_MESSAGE), 0
        while start < len(received):
            length, kind, *_ = HEADER.unpack_from(received, start)
            yield kind, received[start + HEADER.size : start + length]
            start += length + -length % 4


def require_done(kind: int, body: bytes) -> None:
    """Raises OSError where the answer reports a failure."""
    number = -struct.unpack_from("=i", body)[0] if kind == ERROR else 0
    if number:
        raise OSError(number, os.strerror(number))


def message(number: int, flags: int, family: int, *attributes: bytes) -> bytes:
    """A message of nftables."""
    return header(NF_TABLES << 8 | number, REQUEST | flags, FAMILY.pack(family, 0, 0) + b"".join(attributes))


def header(kind: int, flags: int, body: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, flags, 1, 0) + body


def attribute(kind: int, content: bytes) -> bytes:
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(content), kind) + content + bytes(-len(content) % 4)


def text(kind: int, content: str) -> bytes:
    return attribute(kind, content.encode() + b"\0")


def nested(kind: int, *content: bytes) -> bytes:
    return attribute(kind | NESTED, b"".join(content))
