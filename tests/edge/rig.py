"""A test rig for the edge: a real nginx between a fake control plane and fake sessions.

The fakes write raw bytes, so that a test can send what no library would send.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from buntime.config import SHARED_RUN_DIR, Config
from buntime.daemon.tasks import Tasks
from buntime.edge import process
from buntime.plan import load_plans

HOST = "ses-abcdefghij12345678.localhost"
PORT = 8080
BACKLOG = 4096  # as the real control plane has it: under a flood, connections come faster than they are taken
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass(frozen=True, slots=True)
class Message:
    """A request or an answer: its first line, its headers in order, and its complete body."""

    line: str
    fields: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def status(self) -> int:
        return int(self.line.split()[1])

    @property
    def target(self) -> str:
        return self.line.split()[1]

    def all(self, name: str) -> list[str]:
        return [value for field_name, value in self.fields if field_name.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        found = self.all(name)
        return found[0] if found else None


async def read_message(reader: asyncio.StreamReader, *, bodiless: bool = False) -> Message | None:
    """Reads one message. Returns None at the end of the connection. An answer without a length ends with it."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    line, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    message = Message(line, tuple((k, v.strip(" ")) for k, _, v in (text.partition(":") for text in lines)), b"")
    is_request = line.startswith("HTTP/") is False
    if bodiless:
        return message
    if (message.header("Transfer-Encoding") or "") == "chunked":
        return replace(message, body=await _read_chunks(reader))
    length = message.header("Content-Length")
    if length is None:
        return replace(message, body=b"" if is_request else await reader.read())
    return replace(message, body=await reader.readexactly(int(length)))


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    while await reader.readline() != b"\r\n":
        pass
    return body


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class FakeSession:
    """A program that listens in a session. Counts connections and records requests."""

    answer: Callable[[Message], bytes] = lambda request: OK
    serve: Serve | None = None  # handles the raw connection instead of `answer`
    requests: list[Message] = field(default_factory=list)
    connections: int = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            if self.serve:
                await self.serve(reader, writer)
                return
            while request := await read_message(reader):
                self.requests.append(request)
                writer.write(self.answer(request))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, ValueError):
            pass
        finally:
            writer.close()


@dataclass(frozen=True, slots=True)
class Reply:
    """The control plane's answer to a question of the edge."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


def permit(address: str, seconds: int = 1, uri: str = "") -> Reply:
    more = (("X-Uri", uri),) if uri else ()
    return Reply(200, (("X-Upstream", address), ("X-Cache", str(seconds)), *more))


@dataclass
class Rig:
    config: Config
    answer: Callable[[Message], Awaitable[Reply]]
    questions: list[Message] = field(default_factory=list)
    stack: list[asyncio.Server] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"{HOST}:{self.config.port}"

    def asked(self, path: str = "/admit") -> list[Message]:
        return [question for question in self.questions if question.target == path]

    async def listen(self, session: FakeSession, address: str = "127.0.0.2", port: int = 0) -> str:
        """Starts a session's program. Returns its address in the control plane's form."""
        server = await asyncio.start_server(session, address, port)
        self.stack.append(server)
        return f"{address}:{server.sockets[0].getsockname()[1]}"

    async def open_to(self, session: FakeSession) -> None:
        """Lets the control plane send every preview request to this session."""
        address = await self.listen(session)

        async def answer(question: Message) -> Reply:
            return permit(address)

        self.answer = answer

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.config.port, limit=1 << 22)

    async def send(self, request: bytes) -> Message | None:
        """Sends these bytes. Returns the answer, or None if the connection closes without one."""
        reader, writer = await self.connect()
        writer.write(request)
        try:
            return await asyncio.wait_for(read_message(reader, bodiless=request.startswith(b"HEAD")), 10)
        finally:
            writer.close()

    async def get(
        self, path: str = "/", host: str | None = None, method: str = "GET", body: bytes = b"", **headers: str
    ) -> Message:
        """Sends a request and returns the answer. In header names, write `_` for `-`."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host or self.host}", "Connection: close"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        answer = await self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        assert answer is not None
        return answer

    async def control_plane(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while question := await read_message(reader):
            self.questions.append(question)
            reply = await self.answer(question)
            lines = [f"HTTP/1.1 {reply.status} Whatever", *(f"{name}: {value}" for name, value in reply.headers)]
            writer.write("\r\n".join([*lines, f"Content-Length: {len(reply.body)}"]).encode() + b"\r\n\r\n")
            writer.write(reply.body)
        writer.close()


async def not_found(question: Message) -> Reply:
    return Reply(404, (("Content-Type", "text/plain"),), b"no such session")


@asynccontextmanager
async def control_plane(rig: Rig) -> AsyncIterator[None]:
    path = rig.config.edge_socket
    server = await asyncio.start_unix_server(rig.control_plane, path, limit=1 << 20, backlog=BACKLOG)
    open_to_workers(path)
    try:
        yield
    finally:
        server.close()
        server.close_clients()
        path.unlink(missing_ok=True)


def open_to_workers(path: Path) -> None:
    path.chmod(0o666)


@asynccontextmanager
async def edge(config: Config) -> AsyncIterator[Rig]:
    """Runs nginx with the real configuration. Its control plane does not listen yet."""
    SHARED_RUN_DIR.mkdir(mode=0o711, exist_ok=True)
    rig = Rig(config, not_found)
    async with Tasks() as tasks:
        await process.start_edge(config, load_plans(None), tasks)
        try:
            yield rig
        finally:
            for server in rig.stack:
                server.close()
                server.close_clients()
