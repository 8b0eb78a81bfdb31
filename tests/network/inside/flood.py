"""Runs in a session's network: flood.py stream|datagrams|connections ADDRESS SECONDS – floods the address.

Prints the number of bytes, datagrams or connections, and the seconds that it took.
"""

import socket
import sys
import time

kind, address, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
count, start = 0, time.monotonic()
if kind == "stream":
    with socket.create_connection((address, 9000), 5) as there:
        while time.monotonic() < start + seconds:
            count += there.send(bytes(1 << 16))
elif kind == "datagrams":
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.connect((address, 9000))
        while time.monotonic() < start + seconds:
            for _ in range(100):
                there.send(b"x")
            count += 100
else:
    while time.monotonic() < start + seconds:
        with socket.socket() as there:
            there.settimeout(max(0.01, start + seconds - time.monotonic()))
            try:
                there.connect((address, 9000))
                count += 1
            except OSError:
                continue
print(count, time.monotonic() - start)
