"""A proxy before an S3 server. It fails as stores do: late, with errors, or in the middle of an object."""

import itertools
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

PIECE = 1 << 16
HOP = {"connection", "transfer-encoding", "keep-alive"}
THROTTLED = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
BROKEN = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"

type Request = BaseHTTPRequestHandler
type Give = Callable[["Reading"], None]  # answers a GET of an object


@dataclass
class FaultyStore:
    """Passes requests on. While `give` is set, it answers the reads of objects."""

    url: str
    give: Give | None = None
    reads: Counter[str] = field(default_factory=Counter)  # by object, since `give` was set
    ended: threading.Event = field(default_factory=threading.Event)

    def fail(self, give: Give | None) -> None:
        self.reads, self.give = Counter(), give


@dataclass
class Reading:
    """A read of an object, which the store has answered."""

    store: FaultyStore
    request: Request
    answer: HTTPResponse
    number: int  # of the object's reads, counted from 1

    def refuse(self, status: int, body: bytes) -> None:
        self.request.send_response(status)
        self.request.send_header("Content-Length", str(len(body)))
        self.request.send_header("Connection", "close")
        self.request.end_headers()
        self.request.wfile.write(body)

    def head(self, length: int | None = None) -> None:
        """`length`: promised in place of the true one."""
        self.request.send_response(self.answer.status)
        for name, value in self.answer.getheaders():
            if name.lower() not in HOP | {"content-length"}:
                self.request.send_header(name, value)
        self.request.send_header("Content-Length", str(self.length if length is None else length))
        self.request.send_header("Connection", "close")
        self.request.end_headers()

    @property
    def length(self) -> int:
        return int(self.answer.getheader("Content-Length") or 0)

    def body(self, most: int | None = None) -> Iterator[bytes]:
        left = self.length if most is None else min(most, self.length)
        while left and (piece := self.answer.read(min(PIECE, left))):
            left -= len(piece)
            yield piece

    def write(self, most: int | None = None) -> None:
        for piece in self.body(most):
            self.request.wfile.write(piece)

    def reset(self) -> None:
        self.request.wfile.flush()
        self.request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.request.connection.close()


@contextmanager
def faulty(url: str) -> Iterator[FaultyStore]:
    """A proxy before the S3 server at `url`, for the block."""
    there = urlsplit(url)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def handle_one_request(self) -> None:
            self.raw_requestline = self.rfile.readline()
            self.close_connection = True
            if self.raw_requestline and self.parse_request():
                with suppress(OSError, HTTPException):
                    self._pass_on()

        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            passing = HTTPConnection(there.hostname or "", there.port, timeout=60)
            try:
                passing.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    passing.putheader(name, value)
                passing.endheaders(body or None)
                reading = Reading(store, self, passing.getresponse(), 0)
                give = store.give
                if give is None or self.command != "GET" or "?" in self.path:
                    reading.head()
                    reading.write()
                else:
                    store.reads[self.path] += 1
                    reading.number = store.reads[self.path]
                    give(reading)
            finally:
                passing.close()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        store = FaultyStore(f"http://127.0.0.1:{server.server_port}")
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        serving.start()
        try:
            yield store
        finally:
            store.ended.set()
            server.shutdown()
            serving.join()


# --- what goes wrong ---


def late(reading: Reading) -> None:
    """Each piece takes its time."""
    reading.head()
    for piece in reading.body():
        reading.store.ended.wait(0.025)
        reading.request.wfile.write(piece)


def erring(reading: Reading) -> None:
    """Most reads are refused with a 500."""
    if reading.number % 4:
        reading.refuse(500, BROKEN)
    else:
        cut(reading)


def throttled(reading: Reading) -> None:
    if reading.number % 4:
        reading.refuse(503, THROTTLED)
    else:
        cut(reading)


def cut(reading: Reading) -> None:
    """The connection ends after a part of what was promised."""
    reading.head()
    reading.write(7 << 20)


def reset(reading: Reading) -> None:
    reading.head()
    reading.write(7 << 20)
    reading.reset()


def stalled(reading: Reading) -> None:
    """The first connection goes silent."""
    reading.head()
    if reading.number == 1:
        reading.write(7 << 20)
        reading.store.ended.wait()
    else:
        reading.write()


def truncated(reading: Reading) -> None:
    """The first answer is shorter than the object, and says that it is whole."""
    if reading.number == 1:
        reading.head(length=reading.length // 2)
        reading.write(reading.length // 2)
    else:
        reading.head()
        reading.write()


def flipped(reading: Reading) -> None:
    """The first answer has a wrong bit."""
    reading.head()
    for number, piece in zip(itertools.count(), reading.body()):
        wrong = reading.number == 1 and number == 9
        reading.request.wfile.write(bytes([piece[0] ^ 1]) + piece[1:] if wrong else piece)
