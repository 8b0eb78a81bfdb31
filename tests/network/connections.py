"""Connections from a session's network that stay open while a test changes what they may do."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tests.network.place import World

Try = Callable[[str], bool]
PATIENCE = 20.0  # seconds; a guard against a hang


async def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not await asyncio.to_thread(holds):
        assert time.monotonic() < deadline, "the condition never became true"
        await asyncio.sleep(0.05)


@contextmanager
def echoing(enter: Sequence[str], address: str) -> Iterator[Try]:
    """Yields a call that says whether a text comes back within a second. All calls use one TCP connection."""
    with _conversation(enter, _ECHO, address) as said:
        yield lambda text: said(text) == "yes"


@contextmanager
def hearing(enter: Sequence[str], outside: World, address: str) -> Iterator[Try]:
    """Yields a call that says whether a datagram from outside arrives within a second, on the session's flow."""
    with _conversation(enter, _HEAR, address) as said:
        assert said("begin") == "yes"
        with _conversation(outside.enter(), _TELL, address) as told:

            def heard(text: str) -> bool:
                assert told(text) == "yes"
                return said(text) == "yes"

            yield heard


@contextmanager
def asking(enter: Sequence[str], server: str) -> Iterator[Callable[[str], int]]:
    """Yields a call that returns the code of the answer to a question, or -1. All questions use one port."""
    with _conversation(enter, _ASK, server) as said:
        yield lambda name: int(said(name))


@contextmanager
def _conversation(enter: Sequence[str], program: str, argument: str) -> Iterator[Callable[[str], str]]:
    with subprocess.Popen(
        [*enter, sys.executable, "-c", program, argument], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:

        def say(line: str) -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(line + "\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        try:
            yield say
        finally:
            process.kill()


_ECHO = """
import socket, sys
with socket.create_connection((sys.argv[1], 443), 5) as there:
    there.settimeout(1.0)
    for line in sys.stdin:
        try:
            there.sendall(line.encode())
            print("yes" if there.recv(100).endswith(line.encode()) else "no", flush=True)
        except OSError:
            print("no", flush=True)
"""
_HEAR = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
    there.settimeout(1.0)
    there.bind(("0.0.0.0", 5599))
    there.connect((sys.argv[1], 443))
    there.send(b"begin")
    for line in sys.stdin:
        try:
            print("yes" if there.recv(100).decode() == line.strip() else "no", flush=True)
        except OSError:
            print("no", flush=True)
"""
_TELL = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
    there.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    there.bind((sys.argv[1], 443))
    for line in sys.stdin:
        there.sendto(line.strip().encode(), ("192.31.196.1", 5599))
        print("yes", flush=True)
"""
_ASK = """
import socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
    there.settimeout(2.0)
    there.bind(("0.0.0.0", 5598))
    there.connect((sys.argv[1], 53))
    for line in sys.stdin:
        name = b"".join(bytes([len(p)]) + p for p in line.strip().encode().split(b"."))
        try:
            there.send(struct.pack("!6H", 9, 256, 1, 0, 0, 0) + name + b"\\0" + struct.pack("!2H", 1, 1))
            print(there.recv(512)[3] & 15, flush=True)
        except OSError:
            print(-1, flush=True)
"""
