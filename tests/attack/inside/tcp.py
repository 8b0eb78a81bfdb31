"""Fills the buffers of TCP connections over the loopback: tcp.py accepted|waiting. Charged to the memory cgroup on v2;
on v1 to a counter of its own (memory.kmem.tcp). The kernel bounds them for the host by tcp_mem."""

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
        held.tell(filled // MB, str(refused.strerror))
        break
    with suppress(OSError):
        while True:
            filled += one.send(bytes(MB))
            held.tell(filled // MB)
held.keep(filled // MB)
