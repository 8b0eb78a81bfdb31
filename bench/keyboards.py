"""Shells: on a local PTY, in a session by WebSocket, and by the bare chain. Blocking; times in seconds."""

import os
import pty
import select
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from bench.exchanges import TIMEOUT, connect
from bench.previews import Way

QUIET_SECONDS = 0.3  # silence after which the prompt is complete
SHELL = ["setsid", "--ctty", "bash", "--norc", "--noprofile", "-i"]
KILL_LINE = b"\x15"
TEXT, BINARY, CLOSE, PING = 1, 2, 8, 9
UPGRADE = (
    "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{}\r\n"
)


class Keyboard(Protocol):
    def send(self, keys: bytes) -> None: ...

    def read(self, seconds: float) -> bytes:
        """Returns the next output, or nothing if none comes within `seconds`."""
        ...


def echo(keyboard: Keyboard, key: bytes) -> float:
    """Measures until the shell has shown the key. Raises RuntimeError if it does not."""
    start, shown = time.perf_counter(), b""
    keyboard.send(key)
    while key not in shown:
        read = keyboard.read(TIMEOUT)
        if not read:
            raise RuntimeError(f"no echo: {shown!r}")
        shown += read
    return time.perf_counter() - start


def clear(keyboard: Keyboard) -> None:
    """Clears the line."""
    keyboard.send(KILL_LINE)
    settle(keyboard)


def settle(keyboard: Keyboard) -> None:
    while keyboard.read(QUIET_SECONDS):
        pass


@contextmanager
def local() -> Iterator[Keyboard]:
    ours, theirs = pty.openpty()
    try:
        environ = {"PATH": "/usr/bin:/bin", "TERM": "xterm-256color", "HOME": "/tmp"}
        with subprocess.Popen(SHELL, stdin=theirs, stdout=theirs, stderr=theirs, env=environ) as shell:
            try:
                yield _Local(ours)
            finally:
                shell.kill()
    finally:
        os.close(theirs)
        os.close(ours)


@contextmanager
def remote(api: Way, session: str) -> Iterator[Keyboard]:
    """Opens a new terminal. Raises RuntimeError if that fails."""
    with connect(api) as connection:
        yield _Remote(connection, _upgraded(connection, api, f"/sessions/{session}/terminal"))


@contextmanager
def plain(way: Way, target: str) -> Iterator[Keyboard]:
    """The same at another path, without WebSocket's frames: keys and output are bytes."""
    with connect(way) as connection:
        yield _Plain(connection, _upgraded(connection, way, target))


def _upgraded(connection: socket.socket, way: Way, target: str) -> bytes:
    """Returns what has arrived behind the response. Raises RuntimeError."""
    connection.sendall(UPGRADE.format(target, way.host, way.fields).encode())
    beginning = b""
    while b"\r\n\r\n" not in beginning:
        read = connection.recv(65536)
        if not read:
            break
        beginning += read
    if not beginning.startswith(b"HTTP/1.1 101"):
        raise RuntimeError(f"no terminal: {beginning[:500]!r}")
    return beginning.partition(b"\r\n\r\n")[2]


class _Local:
    def __init__(self, handle: int) -> None:
        self._handle = handle

    def send(self, keys: bytes) -> None:
        os.write(self._handle, keys)

    def read(self, seconds: float) -> bytes:
        ready, _, _ = select.select([self._handle], [], [], seconds)
        return os.read(self._handle, 65536) if ready else b""


class _Plain:
    def __init__(self, connection: socket.socket, read: bytes) -> None:
        self._connection = connection
        self._read = read

    def send(self, keys: bytes) -> None:
        self._connection.sendall(keys)

    def read(self, seconds: float) -> bytes:
        if self._read:
            read, self._read = self._read, b""
            return read
        ready, _, _ = select.select([self._connection], [], [], seconds)
        return self._connection.recv(65536) if ready else b""


class _Remote:
    """Returns binary frames, which hold the terminal's output. Skips other frames."""

    def __init__(self, connection: socket.socket, read: bytes) -> None:
        self._connection = connection
        self._read = bytearray(read)

    def send(self, keys: bytes) -> None:
        self._frame(BINARY, keys)

    def read(self, seconds: float) -> bytes:
        deadline = time.monotonic() + seconds
        while True:
            for kind, content in self._frames():
                if kind == BINARY:
                    return content
                if kind == PING:
                    self._frame(10, content)
                if kind == CLOSE:
                    raise RuntimeError(f"the terminal was closed: {content!r}")
            self._connection.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                more = self._connection.recv(65536)
            except TimeoutError:
                return b""
            if not more:
                raise RuntimeError("the terminal's connection has ended")
            self._read += more

    def _frame(self, kind: int, content: bytes) -> None:
        """Sends a short frame with a mask of zeros."""
        self._connection.settimeout(TIMEOUT)
        self._connection.sendall(bytes([0x80 | kind, 0x80 | len(content)]) + bytes(4) + content)

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        """Yields the complete frames."""
        while len(self._read) >= 2:
            kind, size, start = self._read[0] & 15, self._read[1] & 127, 2
            if size >= 126:
                start, form = (4, ">H") if size == 126 else (10, ">Q")
                if len(self._read) < start:
                    return
                (size,) = struct.unpack_from(form, self._read, 2)
            if len(self._read) < start + size:
                return
            content = bytes(self._read[start : start + size])
            del self._read[: start + size]
            yield kind, content
