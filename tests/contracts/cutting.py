"""A proxy before PostgreSQL that cuts connections at the worst moments."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import Enum

CHUNK = 1 << 16
COMMIT = re.compile(rb"COMMIT(?!TED)")
# A statement that is a transaction of its own marks itself first: its Parse message, and a Bind message, with its name.
PARSED = re.compile(rb"P.{4}(\w*)\x00(?:--[^\n]*\n)*WITH marked AS", re.DOTALL)
BOUND = re.compile(rb"B.{4}\x00(\w*)\x00", re.DOTALL)


class Cut(Enum):
    NOTHING = "nothing"
    BEFORE_COMMIT = "before the server has the COMMIT"
    AFTER_COMMIT = "after the server's answer to it, which does not arrive"
    SILENCE = "nothing arrives any more, and nothing is cut"


class CuttingProxy:
    """`armed`: what happens at the next COMMIT of any connection, once."""

    def __init__(self, port: int) -> None:
        self.armed = Cut.NOTHING
        self.cuts = 0
        self.is_silent = False  # nothing arrives any more, of any connection
        self.refuses = False  # from the next cut on, no connection is left or made, as when the server is away
        self._is_away = False
        self._clients = set[asyncio.StreamWriter]()
        self.port = 0
        self._to = port

    @asynccontextmanager
    async def running(self) -> AsyncIterator["CuttingProxy"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_away:
            writer.close()
            return
        self._clients.add(writer)
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._to)
        back = asyncio.create_task(_copy(server_reader, writer))
        at_once = set[bytes]()  # names of statements
        try:
            while data := await reader.read(CHUNK):
                at_once |= set(PARSED.findall(data))
                commits = COMMIT.search(data) or at_once & set(BOUND.findall(data))
                cut, self.armed = (self.armed, Cut.NOTHING) if commits else (Cut.NOTHING, self.armed)
                self.cuts += cut is not Cut.NOTHING
                if cut is Cut.BEFORE_COMMIT:
                    break
                if cut is not Cut.NOTHING:
                    back.cancel()
                    with suppress(asyncio.CancelledError):
                        await back
                if self.is_silent:
                    continue
                server_writer.write(data)
                if cut is Cut.AFTER_COMMIT:
                    await server_reader.read(CHUNK)
                    self._leave()
                    break
        except ConnectionError:
            pass
        finally:
            back.cancel()
            for one in (writer, server_writer):
                one.close()

    def come_back(self) -> None:
        self.refuses = self._is_away = False

    def _leave(self) -> None:
        self._is_away = self.refuses
        for client in self._clients if self._is_away else ():
            client.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(CHUNK):
            writer.write(data)
    writer.close()
