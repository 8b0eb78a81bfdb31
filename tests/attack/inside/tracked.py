"""Sends datagrams over the loopback from ever new ports: each may become an entry of the table of tracked connections
of the session's own network namespace, which no cgroup counts."""

import socket
import time
from contextlib import suppress

from held import Held

held, sent, receivers = Held(), 0, []
for _ in range(40):  # few: what waits in their queues is another row's
    receivers.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    receivers[-1].bind(("127.0.0.1", 0))
while True:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        for receiver in receivers:
            with suppress(OSError):
                one.sendto(b"x", receiver.getsockname())
                sent += 1
    held.tell(sent)
    if sent > 5_000_000:
        time.sleep(0.01)
