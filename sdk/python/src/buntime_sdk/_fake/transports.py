"""Replaces the network below the two halves of the SDK."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import NoReturn

import httpx2

from buntime_sdk._fake.answers import STATUSES, Answer, error_object
from buntime_sdk._fake.request import request_of
from buntime_sdk._fake.server import FakeServer
from buntime_sdk._fake.terminal import FakeTerminal
from buntime_sdk.deadlines import Deadline
from buntime_sdk.dialing import AsyncSocket, Socket
from buntime_sdk.errors import BuntimeError, ConnectionFailed, RequestTimeout, error_of

LOOK = 0.005  # seconds between two polls


def pause(seconds: float) -> None:
    """A short pause, since this server needs no time."""
    time.sleep(min(seconds, LOOK))


async def async_pause(seconds: float) -> None:
    await asyncio.sleep(min(seconds, LOOK))


class _Parts:
    def __init__(self, server: FakeServer, answer: Answer, request: httpx2.Request) -> None:
        self._lock = server.lock
        self._parts = iter(answer.parts)
        self._request = request
        self._is_shut = False

    def get_extra_info(self, name: str) -> "_Parts | None":
        """Stands for the connection and for its socket."""
        return self if name == "socket" else None

    def shutdown(self, how: int) -> None:
        self._is_shut = True

    def _next(self) -> bytes | None:
        """Returns the next part, or None if nothing has arrived yet. Raises StopIteration."""
        if self._is_shut:
            raise httpx2.ReadError("The connection was shut.", request=self._request)
        with self._lock:
            try:
                return next(self._parts)
            except (ConnectionFailed, RequestTimeout) as failure:
                _break(failure, self._request)

    def _end(self) -> None:
        close: Callable[[], object] | None = getattr(self._parts, "close", None)
        if close is not None:
            with self._lock:
                close()


class _Body(_Parts, httpx2.SyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        while True:
            try:
                part = self._next()
            except StopIteration:
                return
            if part is None:
                time.sleep(LOOK)
            else:
                yield part

    def close(self) -> None:
        self._end()


class _AsyncBody(_Parts, httpx2.AsyncByteStream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            try:
                part = self._next()
            except StopIteration:
                return
            if part is None:
                await asyncio.sleep(LOOK)
            else:
                yield part

    async def aclose(self) -> None:
        self._end()


class FakeTransport(httpx2.BaseTransport):
    def __init__(self, server: FakeServer) -> None:
        self._server = server

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = _answer(self._server, request, request.read())
        body = _Body(self._server, answer, request)
        connection = {"network_stream": body}
        return httpx2.Response(answer.status, headers=dict(answer.headers), stream=body, extensions=connection)


class AsyncFakeTransport(httpx2.AsyncBaseTransport):
    def __init__(self, server: FakeServer) -> None:
        self._server = server

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = _answer(self._server, request, await request.aread())
        body = _AsyncBody(self._server, answer, request)
        return httpx2.Response(answer.status, headers=dict(answer.headers), stream=body)


class _Wire:
    def __init__(self, server: FakeServer, terminal: FakeTerminal) -> None:
        self._server = server
        self._terminal = terminal
        self._is_closed = False

    @property
    def _is_over(self) -> bool:
        return self._is_closed or (self._terminal.is_over and not self._terminal.frames)

    def _type(self, message: str | bytes) -> None:
        if self._is_closed:
            raise ConnectionFailed("The connection broke: it was closed.", begun=True)
        with self._server.lock:
            self._terminal.type(message)


class _Socket(_Wire):
    def receive(self, timeout: float | None = None) -> str | bytes | None:
        deadline = Deadline.after(timeout)
        while not self._is_over:
            if self._terminal.frames:
                return self._terminal.frames.popleft()
            if deadline.is_past:
                raise TimeoutError
            time.sleep(LOOK)
        return None

    def send(self, message: str | bytes) -> None:
        self._type(message)

    def close(self) -> None:
        self._is_closed = True


class _AsyncSocket(_Wire):
    async def receive(self, timeout: float | None = None) -> str | bytes | None:
        deadline = Deadline.after(timeout)
        while not self._is_over:
            if self._terminal.frames:
                return self._terminal.frames.popleft()
            if deadline.is_past:
                raise TimeoutError
            await asyncio.sleep(LOOK)
        return None

    async def send(self, message: str | bytes) -> None:
        self._type(message)

    async def close(self) -> None:
        self._is_closed = True


class Dialing:
    """Opens terminals of a fake server."""

    def __init__(self, server: FakeServer) -> None:
        self._server = server

    def dial(self, url: str, headers: Mapping[str, str], timeout: float) -> Socket:
        return _Socket(self._server, self._terminal(url, headers))

    async def async_dial(self, url: str, headers: Mapping[str, str], timeout: float) -> AsyncSocket:
        return _AsyncSocket(self._server, self._terminal(url, headers))

    def _terminal(self, url: str, headers: Mapping[str, str]) -> FakeTerminal:
        try:
            return self._server.terminal(request_of("GET", url, headers, b""))
        except (ConnectionFailed, RequestTimeout):
            raise
        except BuntimeError as failure:  # as parsed from a response
            status = failure.status or STATUSES.get(failure.code, 500)
            raise error_of(error_object(failure), status, "fake", failure.retry_after) from None


def _answer(server: FakeServer, request: httpx2.Request, content: bytes) -> Answer:
    try:
        return server.answer(request_of(request.method, str(request.url), request.headers, content))
    except (ConnectionFailed, RequestTimeout) as failure:
        _break(failure, request)


def _break(failure: ConnectionFailed | RequestTimeout, request: httpx2.Request) -> NoReturn:
    """Raises the failure as the HTTP client does."""
    if isinstance(failure, RequestTimeout):
        raise httpx2.ReadTimeout(failure.message, request=request)
    if failure.begun:
        raise httpx2.ReadError(failure.message, request=request)
    raise httpx2.ConnectError(failure.message, request=request)
