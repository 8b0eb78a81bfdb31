"""A guest that answers as a test says. It implements its end of `guest/PROTOCOL.md` apart from the real one."""

import asyncio
import json
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field

from buntime.sandboxes.guest.client import Guest, Links

HEADER = struct.Struct(">cII")
SECRET = "secret"  # noqa: S105 - of a test
LARGEST, WINDOW, COST = 65_536, 262_144, 256
HELLO = b'{"protocol": 2}'


def packed(kind: bytes, number: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(kind, number, len(payload)) + payload


def head(status: int = 200, fields: Mapping[str, str] | None = None) -> bytes:
    text = json.dumps(fields).encode() if fields else b""
    return struct.pack(">HH", status, len(text)) + text


@dataclass
class Asked:
    """A request that has arrived, and the means to answer it."""

    writer: asyncio.StreamWriter
    number: int
    method: str
    path: str
    body: bytearray = field(default_factory=bytearray)
    over: asyncio.Event = field(default_factory=asyncio.Event)  # its body is complete
    credit: int = WINDOW
    granted: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, kind: bytes, payload: bytes = b"") -> None:
        self.writer.write(packed(kind, self.number, payload))

    def answer(self, body: bytes, status: int = 200, fields: Mapping[str, str] | None = None) -> None:
        """A whole answer in one frame."""
        self.send(b"a", head(status, fields) + body)

    def start(self, status: int = 200, fields: Mapping[str, str] | None = None) -> None:
        begun = head(status, fields)
        self.credit -= len(begun) + COST
        self.send(b"s", begun)

    async def more(self, content: bytes) -> None:
        """Sends a part of the body, within the credit."""
        while content:
            while (most := min(self.credit - COST, LARGEST)) <= 0:
                self.granted.clear()
                await self.granted.wait()
            part, content = content[:most], content[most:]
            self.credit -= len(part) + COST
            self.send(b"d", part)
            await self.writer.drain()


type Script = Callable[[Asked], Awaitable[None]]


def whole(body: bytes, status: int = 200) -> Script:
    """Answers with this body."""

    async def script(asked: Asked) -> None:
        if len(body) + 4 <= LARGEST:
            asked.answer(body, status)
            return
        asked.start(status)
        await asked.more(body)
        asked.send(b"e")

    return script


def streamed(*parts: bytes, again: bytes = b"", ends: bool = False) -> Script:
    """Begins an answer and sends these parts. Repeats `again` without end."""

    async def script(asked: Asked) -> None:
        asked.start()
        for part in parts:
            await asked.more(part)
        while again:
            await asked.more(again)
        if ends:
            asked.send(b"e")

    return script


def raw(say: Callable[[int], bytes], again: Callable[[int], bytes] | None = None) -> Script:
    """Writes bytes for the stream's number. Repeats `again` without end, whatever the credit is."""

    async def script(asked: Asked) -> None:
        asked.writer.write(say(asked.number))
        while again is not None:
            asked.writer.write(again(asked.number))
            await asked.writer.drain()

    return script


class Scripted:
    """One connection of the guest."""

    def __init__(
        self, script: Script, hello: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._script = script
        self._hello = hello
        self._reader = reader
        self._writer = writer
        self._asked: dict[int, Asked] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def serve(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    kind, number, length = HEADER.unpack(await self._reader.readexactly(HEADER.size))
                    self._take(tasks, kind, number, await self._reader.readexactly(length))
        except* (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writer.close()

    def _take(self, tasks: asyncio.TaskGroup, kind: bytes, number: int, payload: bytes) -> None:
        if kind == b"h":
            assert payload.decode() == SECRET
            self._writer.write(self._hello)
        elif kind in (b"q", b"b"):
            at = 2 + int.from_bytes(payload[:2])
            method, _, target = payload[2:at].decode("latin1").partition(" ")
            asked = Asked(self._writer, number, method, target.partition("?")[0], bytearray(payload[at:]))
            if kind == b"q":
                asked.over.set()
            self._asked[number] = asked
            self._tasks[number] = tasks.create_task(self._answer(asked))
        elif kind == b"c":
            self._tasks[number].cancel()
        elif kind == b"d":
            self._asked[number].body += payload
            self._asked[number].send(b"w", struct.pack(">I", length_of(payload)))
        elif kind == b"e":
            self._asked[number].over.set()
        elif kind == b"w":
            self._asked[number].credit += int.from_bytes(payload)
            self._asked[number].granted.set()

    async def _answer(self, asked: Asked) -> None:
        try:
            await self._script(asked)
        except asyncio.CancelledError:
            asked.send(b"r", b"cancelled")
            raise


def length_of(payload: bytes) -> int:
    """What a part of a body costs."""
    return len(payload) + COST


@asynccontextmanager
async def serving(script: Script, hello: bytes | None = None) -> AsyncIterator[int]:
    """Yields the port of such a guest."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.CancelledError):
            await Scripted(script, packed(b"h", 0, HELLO) if hello is None else hello, reader, writer).serve()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        server.close_clients()


@asynccontextmanager
async def answering(script: Script, hello: bytes | None = None) -> AsyncIterator[Guest]:
    """Yields a client of a guest that answers every request as the script says."""
    async with serving(script, hello) as port, Links() as links:
        yield Guest(links, "127.0.0.1", SECRET, port)


@contextmanager
def serving_in_a_thread(script: Script) -> Iterator[int]:
    """The same, so that the test's event loop does only the caller's work. Yields the port."""
    begun: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        ended = asyncio.Event()
        async with serving(script) as port:
            begun.set_result((port, asyncio.get_running_loop(), ended))
            await ended.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    port, loop, ended = begun.result()
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
