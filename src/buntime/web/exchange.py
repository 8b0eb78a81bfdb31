"""One request and its answer on their way through the web layer."""

import asyncio
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.types import Receive, Scope, Send

from buntime.caller import Caller
from buntime.daemon.room import hold
from buntime.web.accept import prefers_page

JSON = b"application/json"
VISIBLE = re.compile(rb"[\x21-\x7e]{1,128}")
PIECE = 1 << 20  # bytes of an answer that are sent at once
SMALL = 32 << 10  # bytes that are sent without a time limit
SLOWEST = 64 * 1024  # bytes a second: the lowest rate at which a client may read an answer …
GRACE = 60.0  # … with this many seconds on top
HOPS = b"x-buntime-hops"
SESSION_ID = re.compile(r"ses_[a-z0-9]{18}")

type Headers = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class Reply:
    """A complete answer. `code`, the error code, and `session_id` are for the log."""

    status: int
    body: bytes
    media: bytes = JSON
    headers: Headers = field(default_factory=list)
    code: str | None = None
    session_id: str | None = None


class ClientLeft(Exception):
    """The client disconnected. Never shown to anyone."""


@dataclass(slots=True)
class Exchange:
    """What is known about a request. It fills in as the request is handled. The ASGI scope has it as "exchange"."""

    scope: Scope
    method: str
    request_id: bytes
    started: float  # time.perf_counter
    headers: Headers = field(default_factory=list)  # of the answer, on top of the reply's own
    route: str = "unknown"  # the template, never the path
    caller: Caller | None = None
    session_id: str | None = None  # only if it has the form of a session id
    status: int = 0
    code: str | None = None
    hops: int = 0  # other hosts by which the request came
    carried_to: str | None = None  # the host that answers it, and counts it in its metrics
    comes_again: bool = False  # it was a question, and the request itself follows

    @property
    def path_params(self) -> Mapping[str, str]:
        params: Mapping[str, str] = self.scope.get("path_params", {})
        return params

    @property
    def is_question(self) -> bool:
        """Whether the edge asks only which host has the session of a request, whose body it has not read."""
        return "where" in self.scope

    def header(self, name: bytes) -> list[bytes]:
        """All values of a request header in order. `name` is in lower case."""
        return [value for key, value in self.scope["headers"] if key == name]

    @property
    def prefers_page(self) -> bool:
        """Whether the client prefers HTML over JSON."""
        return prefers_page(b", ".join(self.header(b"accept")).decode("latin-1"))

    def note_session(self, session_id: object) -> None:
        """For the log. Text that is not an id could be anything, so it is left out."""
        if isinstance(session_id, str) and SESSION_ID.fullmatch(session_id):
            self.session_id = session_id

    async def send(self, reply: Reply, send: Send) -> None:
        self.status, self.code = reply.status, reply.code
        self.note_session(reply.session_id)
        headers = [
            (b"content-type", reply.media),
            (b"content-length", b"%d" % len(reply.body)),
            (b"x-request-id", self.request_id),
            *self.headers,
            *reply.headers,
        ]
        if reply.status in (204, 304):
            del headers[:2]
        if not any(name == b"cache-control" for name, _ in headers):
            headers.append((b"cache-control", b"no-store"))
        body = b"" if self.method == "HEAD" else reply.body
        if len(body) > PIECE:
            hold(len(body))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await _send_body(body, send)


async def _send_body(body: bytes, send: Send) -> None:
    """Sends the body, a large one in pieces. Waits for the client to take each piece before the next.

    Raises ClientLeft if the client reads them too slowly.
    """
    if len(body) <= SMALL:  # it does not wait: the edge has taken all of the connection's previous answer
        await send({"type": "http.response.body", "body": body})
        return
    try:
        async with asyncio.timeout(GRACE + len(body) / SLOWEST):
            for start in range(0, len(body) - PIECE, PIECE):
                await send({"type": "http.response.body", "body": body[start : start + PIECE], "more_body": True})
            last = max(len(body) - 1, 0) // PIECE * PIECE
            await send({"type": "http.response.body", "body": body[last:] if last else body})
    except TimeoutError:
        raise ClientLeft from None


def open_exchange(scope: Scope) -> Exchange:
    """Keeps the client's own request id if it is 1 to 128 visible ASCII characters."""
    asked = next((value for key, value in scope["headers"] if key == b"x-request-id"), b"")
    request_id = asked if VISIBLE.fullmatch(asked) else b"req_" + secrets.token_hex(10).encode()
    told = next((value for key, value in scope["headers"] if key == HOPS), b"")  # the edge takes it from hosts alone
    hops = int(told) if told.isdigit() else 0
    exchange = Exchange(scope, scope["method"], request_id, time.perf_counter(), hops=hops)
    scope["exchange"] = exchange
    return exchange


async def edge_body(receive: Receive) -> bytes:
    """The body of a question from the edge, which bounds it."""
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)
