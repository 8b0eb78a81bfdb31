"""Messages to nftables by netlink. Blocking.

Sources: linux/netfilter/nfnetlink.h and nf_tables.h.
"""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from buntime.sandboxes.network.netlink import (
    ERROR,
    NETFILTER,
    REQUEST,
    answers,
    connected,
    header,
    listed,
    require_done,
    send,
)

FAMILY = struct.Struct("=BBH")  # nfgenmsg
BATCH_BEGIN, BATCH_END = 16, 17
NF_TABLES = 10
INET, IPV4 = 1, 2


class Connection:
    """To nftables of the network namespace in which a thread first uses it. Several threads may use it.

    It stays open. When a socket to nftables is closed, the kernel waits until all that was taken out is cleared away,
    some 10 ms. Meanwhile it makes no link in that namespace.
    """

    def __init__(self) -> None:
        self._kernel: socket.socket | None = None
        self._used = threading.Lock()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        with self._used:
            self._drop()

    def change(self, *messages: bytes) -> None:
        """Applies all messages or none. Each must ask for an acknowledgement. Raises OSError; FileNotFoundError where a
        message names something that does not exist."""
        edge = FAMILY.pack(0, 0, socket.htons(NF_TABLES))
        with self._open() as kernel:
            send(kernel, [header(BATCH_BEGIN, REQUEST, edge), *messages, header(BATCH_END, REQUEST, edge)])
            acknowledged = 0
            for kind, body in answers(kernel):
                require_done(kind, body)
                acknowledged += kind == ERROR
                if acknowledged == len(messages):
                    return

    def read(self, asked: bytes, kind: int) -> list[bytes]:
        """The attributes of each message of this kind in the answer. Raises OSError as above."""
        with self._open() as kernel:
            kernel.send(asked)
            found = [(each, body) for each, body in listed(kernel)]
        return [body[FAMILY.size :] for each, body in found if each == NF_TABLES << 8 | kind]

    @contextmanager
    def _open(self) -> Iterator[socket.socket]:
        with self._used:
            if self._kernel is None:
                self._kernel = connected(NETFILTER)
            try:
                yield self._kernel
            except BaseException:  # answers to this may still come
                self._drop()
                raise

    def _drop(self) -> None:
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None


def message(number: int, flags: int, family: int, *attributes: bytes) -> bytes:
    """A message of nftables."""
    return header(NF_TABLES << 8 | number, REQUEST | flags, FAMILY.pack(family, 0, 0) + b"".join(attributes))
