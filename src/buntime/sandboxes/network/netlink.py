"""Netlink: how the server speaks to the kernel about links, routes, packet rules and sockets. Blocking.

Nothing here starts a program. `ip` and `nft` ask the kernel for every link of the host at each call, which costs the
more the more sandboxes there are.

Sources: linux/netlink.h.
"""

import os
import socket
import struct
from collections.abc import Iterator, Sequence

HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type
REQUEST, ACKNOWLEDGE, DUMP = 0x001, 0x004, 0x300
REPLACE, EXCLUSIVE, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
ERROR, DONE = 2, 3
NESTED, TYPE_MASK = 0x8000, 0x3FFF
ROUTE, SOCKET_DIAGNOSIS, NETFILTER = 0, 4, 12  # families
ANSWER_SECONDS = 5.0
LARGEST_MESSAGE = 1 << 16
SEND_BUFFER = 1 << 20  # bytes, half of which the messages of one call may take
SO_SNDBUFFORCE = 32  # linux/socket.h


def connected(family: int) -> socket.socket:
    """A socket to the kernel, in the calling thread's network namespace."""
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
    kernel.settimeout(ANSWER_SECONDS)
    kernel.bind((0, 0))
    return kernel


def send(kernel: socket.socket, messages: Sequence[bytes]) -> None:
    """Sends all in one system call. Raises OSError."""
    together = b"".join(messages)
    if len(together) > SEND_BUFFER // 16:
        kernel.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER)
    kernel.send(together)


def answers(kernel: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Yields type and body of each message, without end. Raises OSError."""
    while True:
        received, start = kernel.recv(LARGEST_MESSAGE), 0
        while start < len(received):
            length, kind, *_ = HEADER.unpack_from(received, start)
            yield kind, received[start + HEADER.size : start + length]
            start += length + -length % 4


def listed(kernel: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Yields type and body of each message of a listing. Raises OSError."""
    for kind, body in answers(kernel):
        require_done(kind, body)
        if kind == DONE:
            return
        yield kind, body


def require_done(kind: int, body: bytes) -> None:
    """Raises OSError where the answer reports a failure."""
    number = -struct.unpack_from("=i", body)[0] if kind in (ERROR, DONE) and len(body) >= 4 else 0
    if number > 0:
        raise OSError(number, os.strerror(number))


def header(kind: int, flags: int, body: bytes, sequence: int = 1) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, flags, sequence, 0) + body


def attribute(kind: int, content: bytes) -> bytes:
    return ATTRIBUTE.pack(ATTRIBUTE.size + len(content), kind) + content + bytes(-len(content) % 4)


def text(kind: int, content: str) -> bytes:
    return attribute(kind, content.encode() + b"\0")


def number(kind: int, content: int) -> bytes:
    """Of 32 bits, in this machine's order of bytes."""
    return attribute(kind, struct.pack("=I", content))


def nested(kind: int, *content: bytes) -> bytes:
    return attribute(kind | NESTED, b"".join(content))


def attributes(listing: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields type and content of each."""
    start = 0
    while start < len(listing):
        length, kind = ATTRIBUTE.unpack_from(listing, start)
        yield kind & TYPE_MASK, listing[start + ATTRIBUTE.size : start + length]
        start += length + -length % 4
