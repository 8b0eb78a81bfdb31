"""A server on a real socket that responds as a test tells it to, and both halves of the SDK as its clients."""

import asyncio
import json
import socket
import struct
import threading
from collections.abc import AsyncIterable, Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self, cast
from urllib.parse import parse_qsl, urlsplit

from buntime_sdk import AsyncBuntime, Buntime, FileWatch, Pages, RunStream

KEY = "btk_of_nobody"
PATIENCE = 20.0  # seconds; a guard against a hang


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as received. `connection`: which connection it came on, from 1."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    connection: int

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class End(Enum):
    """What follows the body of a response."""

    IN_ORDER = "the end that HTTP defines"
    EARLY = "the connection is closed too early"
    OPEN = "nothing, until the client leaves"


@dataclass(frozen=True, slots=True)
class Answer:
    """`status` 0: no response; the connection is reset."""

    status: int = 200
    body: object = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    end: End = End.IN_ORDER

    @property
    def content(self) -> bytes:
        match self.body:
            case bytes():
                return self.body
            case str():
                return self.body.encode()
        return json.dumps(self.body).encode()


LOST = Answer(0)


def refusal(code: str, status: int, *, retryable: bool = False, after: int | None = None, **details: object) -> Answer:
    shown = {"code": code, "message": "No.", "retryable": retryable, "details": details}
    return Answer(status, {"error": shown}, {} if after is None else {"Retry-After": str(after)})


class StandIn:
    """Returns the answers in turn, and the last one forever. `left`: connections that the client closed."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self.asked: list[Asked] = []
        self.connections = 0
        self.left = threading.Semaphore(0)
        self._answers = list(answers)
        self._lock = threading.Lock()
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                with stand_in._lock:
                    stand_in.connections += 1
                    self.number = stand_in.connections

            def handle(self) -> None:
                with suppress(ConnectionError):
                    super().handle()
                stand_in.left.release()

            def answer(self) -> None:
                content = self._content()
                split = urlsplit(self.path)
                headers = {name.lower(): value for name, value in self.headers.items()}
                query = dict(parse_qsl(split.query, keep_blank_values=True, strict_parsing=bool(split.query)))
                asked = Asked(self.command, split.path, query, headers, content, self.number)
                self._give(stand_in._next(asked))

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - the library's names

            def _content(self) -> bytes:
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length", 0)))
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def _give(self, answer: Answer) -> None:
                if answer.status:
                    self._say(answer)
                if answer.end is End.OPEN:
                    self.rfile.read(1)  # b"" when the client leaves
                elif not answer.status:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                elif answer.end is End.IN_ORDER:
                    return
                self.close_connection = True

            def _say(self, answer: Answer) -> None:
                content = answer.content
                whole = answer.end is End.IN_ORDER
                length = f"Content-Length: {len(content)}" if whole else "Transfer-Encoding: chunked"
                lines = [f"HTTP/1.1 {answer.status} Said", length]
                lines += [f"{name}: {value}" for name, value in answer.headers.items()]
                head = "\r\n".join([*lines, "", ""]).encode()
                chunk = b"%x\r\n%b\r\n" % (len(content), content) if content else b""
                self.wfile.write(head + (content if whole else chunk))

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            block_on_close = False

            def shutdown_request(self, request: Any) -> None:
                self.close_request(request)  # without shutdown, so that a reset stays one

        self._server = Server(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name="stand-in", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _next(self, asked: Asked) -> Answer:
        with self._lock:
            self.asked.append(asked)
            return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


class Half(Enum):
    SYNC = "sync"
    ASYNC = "async"


@dataclass
class Player:
    """Runs work with one half of the SDK. The same work serves both: an awaitable result is awaited, and an iterable
    one becomes a list.

    `paused`: the seconds that the SDK waited. No time passes.
    """

    half: Half
    paused: list[float] = field(default_factory=list)

    def play(self, url: str, *works: Callable[[Any], Any], **options: Any) -> Any:
        """Returns the last work's result. Each work gets the result of the one before; the first gets the client."""
        if self.half is Half.ASYNC:
            return asyncio.run(self._play(url, works, options))
        with Buntime(KEY, url, pause=self.paused.append, **options) as client:
            value: Any = client
            for work in works:
                value = _settled(work(value))
            return value

    def once(self, answers: Sequence[Answer], *works: Callable[[Any], Any], **options: Any) -> tuple[Any, StandIn]:
        with StandIn(answers) as server:
            return self.play(server.url, *works, **options), server

    async def _play(self, url: str, works: Sequence[Callable[[Any], Any]], options: dict[str, Any]) -> Any:
        async def pause(seconds: float) -> None:
            self.paused.append(seconds)

        async with asyncio.timeout(PATIENCE), AsyncBuntime(KEY, url, pause=pause, **options) as client:
            value: Any = client
            for work in works:
                value = await _settled_async(work(value))
            return value


def _settled(value: Any) -> Any:
    if isinstance(value, Pages | RunStream | FileWatch | Generator):
        return list(cast(Iterator[Any], value))
    return value


async def _settled_async(value: Any) -> Any:
    if isinstance(value, Awaitable):
        value = await value
    if isinstance(value, AsyncIterable):
        return [one async for one in value]
    return value
