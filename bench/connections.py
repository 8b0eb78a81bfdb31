"""Kept connections to one HTTP server. They do little work of their own, since that is part of every figure."""

import asyncio
import time
from collections.abc import Mapping
from typing import NamedTuple, cast
from urllib.parse import urlencode, urlsplit

import httptools

IDLE_SECONDS = 60.0  # shorter than the edge's, so that a kept connection is always open
TIMEOUT_SECONDS = 120.0


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]  # lower-case names
    body: bytes


class Connections:
    """To the server at an `http://` address. One request at a time uses one connection."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._host, self._port = address.hostname or "", address.port or 80
        self._name = address.netloc
        self._free: list[_Connection] = []

    async def ask(
        self, method: str, path: str, query: Mapping[str, str] | None, headers: Mapping[str, str], body: bytes | None
    ) -> Answer:
        """Raises OSError if there is no answer: ConnectionError, or TimeoutError after `TIMEOUT_SECONDS`."""
        target = f"{path}?{urlencode(query)}" if query else path
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self._name}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if body is not None or method == "POST":
            lines.append(f"Content-Length: {len(body or b'')}")
        connection = self._kept()
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                connection = connection or await self._opened()
                answer = await connection.send("\r\n".join((*lines, "\r\n")).encode() + (body or b""))
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        if connection.can_be_kept:
            self._free.append(connection)
        return answer

    def close(self) -> None:
        while self._free:
            self._free.pop().close()

    def _kept(self) -> "_Connection | None":
        while self._free:
            connection = self._free.pop()
            if not connection.is_lost and time.monotonic() - connection.used < IDLE_SECONDS:
                return connection
            connection.close()
        return None

    async def _opened(self) -> "_Connection":
        _, connection = await asyncio.get_running_loop().create_connection(_Connection, self._host, self._port)
        return connection


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.used = time.monotonic()
        self.is_lost = self.can_be_kept = False
        self._transport: asyncio.Transport
        self._begin()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._answer: asyncio.Future[Answer] | None = None

    def send(self, request: bytes) -> asyncio.Future[Answer]:
        self._begin()
        self._answer = asyncio.get_running_loop().create_future()
        if self.is_lost:
            self._fail(None)
        else:
            self._transport.write(request)
        return self._answer

    def close(self) -> None:
        if not self.is_lost:
            self._transport.abort()

    def _fail(self, cause: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            failure = ConnectionError("the connection ended without an answer")
            failure.__cause__ = cause
            self._answer.set_exception(failure)

    # --- called by the loop ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transport is not a subclass of asyncio's

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as odd:
            self._fail(odd)
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._fail(exc)

    # --- called by the parser ---

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, piece: bytes) -> None:
        self._body.append(piece)

    def on_message_complete(self) -> None:
        self.used = time.monotonic()
        self.can_be_kept = self._parser.should_keep_alive()
        answer = Answer(self._parser.get_status_code(), self._headers, b"".join(self._body))
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)
