"""Finds free ports for servers that a test starts."""

import os
import random
import socket

# Below Linux's ephemeral ports, so that no connection of another test takes the port before the server does.
FIRST, LAST = 20_000, 32_000


def free_port() -> int:
    """Returns a random free port of the loopback, so that two tests hardly ever get the same one."""
    for port in random.Random(os.urandom(8)).sample(range(FIRST, LAST), 1000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError(f"no port from {FIRST} to {LAST} is free")
