"""Finds free ports for servers that a test starts."""

import os
import random
import socket
from collections import deque
from contextlib import ExitStack

# Below Linux's ephemeral ports, so that no connection of another test takes the port before the server does.
FIRST, LAST = 20_000, 32_000
KEPT = 200  # ports that one process has reserved at a time: the newest ones

_reserved: deque[socket.socket] = deque()


def free_port() -> int:
    """Returns a random free port of the loopback. No test gets the same one, in this process or another one, until this
    one has asked for many more, or has ended: a server binds it later, and a test of a server that is away never."""
    for port in random.Random(os.urandom(8)).sample(range(FIRST, LAST), 1000):
        with ExitStack() as stack:
            name = stack.enter_context(socket.socket(socket.AF_UNIX))
            probe = stack.enter_context(socket.socket())
            try:
                name.bind(f"\0buntime-test-port-{port}")
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            _reserve(name.dup())
            return port
    raise AssertionError(f"no port from {FIRST} to {LAST} is free")


def _reserve(name: socket.socket) -> None:
    """The name is taken for as long as its socket is open."""
    _reserved.append(name)
    if len(_reserved) > KEPT:
        _reserved.popleft().close()
