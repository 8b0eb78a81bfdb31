"""Ports for servers that a test starts."""

import os
import random
import socket

# Below those that Linux gives to connections, so that no connection of another test takes one before its server does.
FIRST, LAST = 20_000, 32_000


def free_port() -> int:
    """On the loopback, and not one that was given out a moment ago."""
    for port in random.Random(os.urandom(8)).sample(range(FIRST, LAST), 1000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"no port from {FIRST} to {LAST} is free")
