"""The server of the bare chain (`bench/bare_chain.py`): passes letters on to bare guests, and does nothing else.

Usage: bare_server.py SOCKET LOG PORT … with the port of each guest. `GET /h` is answered at once, `GET /n` when a line
is on disk, and `GET /X/3` when guest 3 has answered the letter X. After `GET /k/3` the connection is a terminal of
guest 3, and `GET /s/3/01600` is answered with 1,600 pieces of 64 KB from it. It prints a line when it listens.
"""

import asyncio
import os
import sys
from typing import cast

import uvloop

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
TERMINAL = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: bytes\r\n\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"


class Guest(asyncio.Protocol):
    def __init__(self) -> None:
        self.asks: asyncio.Transport
        self.waits: list[asyncio.Transport] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.asks = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for _ in data:
            self.waits.pop(0).write(ANSWER)


class Bridge(asyncio.Protocol):
    """A connection of its own to a guest. What arrives goes to the client, as fast as that takes it."""

    def __init__(self, client: "Front") -> None:
        self._client = client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.asks = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._client.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._client.transport.close()


class Front(asyncio.Protocol):
    def __init__(self, guests: list[Guest], ports: list[int], log: int) -> None:
        self._guests = guests
        self._ports = ports
        self._log = log
        self._bridge: Bridge | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._bridge is not None:
            self._bridge.asks.write(data)
            return
        path = data.split(b" ", 2)[1]
        if path == b"/n":
            os.write(self._log, b"x" * 500)
            os.fdatasync(self._log)
        if len(path) == 2:
            self.transport.write(ANSWER)
            return
        letter, number, *more = path[1:].split(b"/")
        if letter in b"ks":
            self._task = asyncio.ensure_future(self._connect(letter, int(number), *more))
            return
        guest = self._guests[int(number)]
        guest.waits.append(self.transport)
        guest.asks.write(letter)

    async def _connect(self, letter: bytes, guest: int, more: bytes = b"") -> None:
        loop = asyncio.get_running_loop()
        _, self._bridge = await loop.create_connection(lambda: Bridge(self), "127.0.0.1", self._ports[guest])
        self.transport.write(TERMINAL if letter == b"k" else STREAM)
        self._bridge.asks.write(letter + more)

    def pause_writing(self) -> None:
        if self._bridge is not None:
            self._bridge.asks.pause_reading()

    def resume_writing(self) -> None:
        if self._bridge is not None:
            self._bridge.asks.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._bridge is not None:
            self._bridge.asks.close()


async def main(socket: str, log: str, ports: list[int]) -> None:
    loop = asyncio.get_running_loop()
    guests = [(await loop.create_connection(Guest, "127.0.0.1", port))[1] for port in ports]
    file = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    server = await loop.create_unix_server(lambda: Front(guests, ports, file), socket)
    os.chmod(socket, 0o666)  # noqa: PTH101, S103 - the edge's user connects
    print("it listens", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], [int(port) for port in sys.argv[3:]]))
