"""The server of the bare chain (`bench/bare_chain.py`): passes letters on to bare guests, and does nothing else.

Usage: bare_server.py SOCKET LOG PORT … with the port of each guest. `GET /h` is answered at once, `GET /n` when a line
is on disk, and `GET /X/3` when guest 3 has answered the letter X. It prints a line when it listens.
"""

import asyncio
import os
import sys
from typing import cast

import uvloop

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


class Guest(asyncio.Protocol):
    def __init__(self) -> None:
        self.asks: asyncio.Transport
        self.waits: list[asyncio.Transport] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.asks = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for _ in data:
            self.waits.pop(0).write(ANSWER)


class Front(asyncio.Protocol):
    def __init__(self, guests: list[Guest], log: int) -> None:
        self._guests = guests
        self._log = log

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        path = data.split(b" ", 2)[1]
        if path == b"/n":
            os.write(self._log, b"x" * 500)
            os.fdatasync(self._log)
        if len(path) == 2:
            self._transport.write(ANSWER)
            return
        guest = self._guests[int(path[3:])]
        guest.waits.append(self._transport)
        guest.asks.write(path[1:2])


async def main(socket: str, log: str, ports: list[str]) -> None:
    loop = asyncio.get_running_loop()
    guests = [(await loop.create_connection(Guest, "127.0.0.1", int(port)))[1] for port in ports]
    file = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    server = await loop.create_unix_server(lambda: Front(guests, file), socket)
    os.chmod(socket, 0o666)  # noqa: PTH101, S103 - the edge's user connects
    print("it listens", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
