"""Fills the buffers of TCP connections over the loopback: tcp.py accepted|waiting.

Buffers are charged to the memory cgroup on v2, and to a separate counter (memory.kmem.tcp) on v1. tcp_mem limits the
host.
"""

import socket
import sys
from contextlib import suppress

from held import Held

MB = 1 << 20
MOST = 1200  # connections
held, filled = Held(), 0
kept: list[socket.socket] = []
listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
while len(kept) < MOST:
    try:
        one = socket.socket()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * MB)
        one.setblocking(False)
        kept.append(one)
        with suppress(BlockingIOError):
            one.connect(listener.getsockname())
        if sys.argv[1] == "accepted":
            kept.append(listener.accept()[0])
    except OSError as refused:
        held.report(filled // MB, str(refused.strerror))
        break
    with suppress(OSError):
        while True:
            filled += one.send(bytes(MB))
            held.report(filled // MB)
held.keep(filled // MB)
