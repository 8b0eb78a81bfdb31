"""Sends datagrams over the loopback from new ports.

Each may add an entry to the connection tracking table of the session's network namespace. No cgroup counts the entries.
"""

import socket
import time
from contextlib import suppress

from held import Held

held, sent, receivers = Held(), 0, []
for _ in range(40):  # few, since another row fills socket queues
    receivers.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    receivers[-1].bind(("127.0.0.1", 0))
while True:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        for receiver in receivers:
            with suppress(OSError):
                one.sendto(b"x", receiver.getsockname())
                sent += 1
    held.report(sent)
    if sent > 5_000_000:
        time.sleep(0.01)
