"""Sends to a cooperating server outside: outside.py stream|datagrams|connections ADDRESS.

Rules limit a session's bandwidth, packets and connections. All sessions share the host's connection tracking table.
"""

import socket
import sys
from contextlib import suppress

from held import Held

PORT = 9000
kind, address = sys.argv[1], sys.argv[2]
held, done = Held(), 0
if kind == "stream":
    while True:
        with suppress(OSError), socket.create_connection((address, PORT), 5) as there:
            while True:
                done += there.send(bytes(1 << 16))
                held.report(done >> 20)
elif kind == "datagrams":
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.connect((address, PORT))
        while True:
            for _ in range(100):
                with suppress(OSError):
                    there.send(b"x")
                    done += 1
            held.report(done)
else:
    kept = []
    while True:
        with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
            there.sendto(b"x", (address, PORT))  # each has a new port, so the kernel tracks a new connection
            done += 1
        with suppress(OSError):
            one = socket.socket()
            one.settimeout(0.01)
            kept.append(one)
            one.connect((address, PORT))
            done += 1
        if len(kept) > 600:
            kept.pop(0).close()
        held.report(done)
