"""Single exchanges over separate sockets: first bytes, large bodies, WebSocket echoes. Times in seconds."""

import asyncio
import secrets
import socket
import time
from collections.abc import Callable
from typing import cast

from bench.previews import MB, Way

TIMEOUT = 60.0
BODY = b"hello"
PIECE = b"x" * MB
# A client's frame with a mask of zeros, so that its 64 bytes stay as they are. The server's echo has no mask.
TEXT = b"e" * 64
FRAME = bytes([0x82, 0x80 | len(TEXT)]) + bytes(4) + TEXT
ECHO_BYTES = 2 + len(TEXT)
UPGRADE = (
    "GET /echo HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def connect(way: Way) -> socket.socket:
    made = socket.create_connection((way.address, way.port), TIMEOUT)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return made


def first_byte(way: Way) -> float:
    """Measures from connecting until the response begins. Raises RuntimeError if it is not 200."""
    start = time.perf_counter()
    with connect(way) as connection:
        connection.sendall(head("GET", "/", way))
        beginning = connection.recv(4096)
        spent = time.perf_counter() - start
    check(beginning)
    return spent


def round_trips(way: Way, count: int, *, asked: bool = False) -> list[float]:
    """Measures `count` requests, one after the other on one connection.

    `asked`: each has a new token, so the edge must ask the control plane. Raises RuntimeError.
    """
    times = []
    with connect(way) as connection:
        for _ in range(count):
            token = f"X-Preview-Token: {secrets.token_hex(16)}\r\n" if asked else ""
            request = f"GET / HTTP/1.1\r\nHost: {way.host}\r\n{token}\r\n".encode()
            start = time.perf_counter()
            connection.sendall(request)
            answer = connection.recv(65536)
            times.append(time.perf_counter() - start)
            check(answer)
            if not answer.endswith(BODY):
                raise RuntimeError(f"{way.name}: the response came in pieces: {answer[:300]!r}")
    return times


def download(way: Way, size: int, target: str = "") -> float:
    """Downloads `size` MB. `target`: the path, if it is not the one that `bench.previews` serves."""
    buffer = bytearray(MB)
    start = time.perf_counter()
    with connect(way) as connection:
        connection.sendall(head("GET", target or f"/download?{size}", way))
        beginning = connection.recv(65536)
        check(beginning)
        left = size * MB - (len(beginning) - beginning.index(b"\r\n\r\n") - 4)
        while left > 0:
            read = connection.recv_into(buffer)
            if not read:
                raise RuntimeError(f"{way.name}: the download ended {left} bytes early")
            left -= read
    return time.perf_counter() - start


def upload(way: Way, size: int, method: str = "POST", target: str = "/upload", piece: bytes = PIECE) -> float:
    """Uploads `size` MB, until the session replies with the number of bytes."""
    wanted = str(size * MB).encode()
    start = time.perf_counter()
    with connect(way) as connection:
        connection.sendall(head(method, target, way, size * MB))
        for _ in range(size):
            connection.sendall(piece)
        answer = b""
        while wanted not in answer.partition(b"\r\n\r\n")[2] and (more := connection.recv(65536)):
            answer += more
        spent = time.perf_counter() - start
    check(answer)
    if wanted not in answer:
        raise RuntimeError(f"{way.name}: not all of the upload arrived: {answer[-40:]!r}")
    return spent


async def echoes(way: Way, seconds: float, connections: int) -> float:
    """Returns the echoed messages a second. Each connection sends its next message after the last echo."""
    loop = asyncio.get_running_loop()
    made = [(await loop.create_connection(lambda: Echo(way), way.address, way.port))[1] for _ in range(connections)]
    try:
        async with asyncio.timeout(TIMEOUT):
            await asyncio.gather(*(echo.opened for echo in made))
        before, start = _count(made), time.perf_counter()
        await asyncio.sleep(seconds)
        counted, spent = _count(made) - before, time.perf_counter() - start
    finally:
        for echo in made:
            echo.close()
    if any(echo.lost for echo in made):
        raise RuntimeError(f"{way.name}: WebSockets were closed")
    return counted / spent


class Echo(asyncio.Protocol):
    """A WebSocket with one message in flight."""

    def __init__(self, way: Way) -> None:
        self._way = way
        self._head = b""
        self._read = 0
        self.bytes = 0
        self.lost = False
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transport is not a subclass of asyncio's
        self._transport.write(UPGRADE.format(self._way.host).encode())

    def data_received(self, data: bytes) -> None:
        if not self.opened.done():
            self._open(data)
            return
        self.bytes += len(data)
        self._read += len(data)
        if self._read == ECHO_BYTES:
            self._read = 0
            self._transport.write(FRAME)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if not self.opened.done():
            self.opened.set_exception(RuntimeError(f"{self._way.name}: no WebSocket: {self._head[:200]!r}"))

    def close(self) -> None:
        if not self.lost:
            self._transport.abort()

    def _open(self, data: bytes) -> None:
        self._head += data
        if b"\r\n\r\n" not in self._head:
            return
        if not self._head.startswith(b"HTTP/1.1 101"):
            self._transport.abort()
            return
        self.opened.set_result(None)
        self._transport.write(FRAME)


def _count(made: list[Echo]) -> float:
    return sum(echo.bytes for echo in made) / ECHO_BYTES


def head(method: str, target: str, way: Way, length: int | None = None) -> bytes:
    size = "" if length is None else f"Content-Length: {length}\r\n"
    return f"{method} {target} HTTP/1.1\r\nHost: {way.host}\r\nConnection: close\r\n{way.fields}{size}\r\n".encode()


def check(answer: bytes) -> None:
    if not answer.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"not 200: {answer[:200]!r}")


def by_turns[T](rounds: int, ways: tuple[Way, ...], work: Callable[[Way], T]) -> dict[Way, list[T]]:
    """Does the work on each way in turn, so that other load on the machine affects all of them."""
    taken: dict[Way, list[T]] = {way: [] for way in ways}
    for turn in range(rounds):
        for way in ways if turn % 2 == 0 else reversed(ways):
            taken[way].append(work(way))
    return taken
