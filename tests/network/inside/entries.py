"""Runs in a session's network: entries.py WAY ADDRESS SECONDS – makes as many new flows as it can in one way.

Each flow is different for the kernel. Prints the number of flows.
"""

import itertools
import socket
import sys
import threading
import time

way, address, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
end, made = time.monotonic() + seconds, 0
loopback = (f"127.{a}.{b}.1" for a in itertools.count(1) for b in range(256))


def serve(listener: socket.socket) -> None:
    while True:
        with listener.accept()[0] as taken:
            taken.send(b"x")


if way == "connections":
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 8080))
        listener.listen(1024)
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        for number, to in enumerate(loopback):
            if time.monotonic() > end:
                break
            with socket.create_connection((address if number % 3 == 2 else to, 8080), 5) as there:
                there.recv(1)
                made += 1
elif way == "from-localhost":
    while time.monotonic() < end:
        with socket.socket() as there:
            there.bind(("127.0.0.1", 0))
            there.setblocking(False)
            there.connect_ex((address, 443))
            made += 1
else:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        for to in loopback:
            if time.monotonic() > end:
                break
            for port in range(1024, 2048):
                there.sendto(b"x", (address if way == "world" else to, port))
                made += 1
print(made)
