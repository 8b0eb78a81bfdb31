"""Fills Unix sockets, and passes open files through them. A file in flight is in no process's table.

Buffers are charged to the memory cgroup. The user's RLIMIT_NOFILE limits files in flight.
"""

import array
import socket
from contextlib import suppress

from held import Held

held, filled = Held(), 0
kept: list[tuple[socket.socket, socket.socket]] = []
try:
    while len(kept) < 3000:
        one, other = socket.socketpair()
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 24)
        one.setblocking(False)
        kept.append((one, other))
        with suppress(OSError):
            passed = array.array("i", [one.fileno(), other.fileno()] * 50)
            one.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
        with suppress(OSError):
            while True:
                filled += one.send(bytes(1 << 16))
        held.report(filled >> 20)
except OSError as refused:
    held.keep(filled >> 20, str(refused.strerror))
held.keep(filled >> 20)
