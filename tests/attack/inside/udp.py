"""Fills the receive buffers of UDP sockets. rmem_max limits each buffer, udp_mem the whole host."""

import socket
from contextlib import suppress

from held import Held

held, filled = Held(), 0
kept: list[socket.socket] = []
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.setblocking(False)
try:
    while len(kept) < 3000:
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
        one.bind(("127.0.0.1", 0))
        kept.append(one)
        with suppress(OSError):
            for _ in range(10):  # the kernel drops more if the buffer is full
                filled += sender.sendto(bytes(30_000), one.getsockname())
        held.report(filled >> 20)
except OSError as refused:
    held.keep(filled >> 20, str(refused.strerror))
held.keep(filled >> 20)
