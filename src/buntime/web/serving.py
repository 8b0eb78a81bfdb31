"""Serving an ASGI application on a Unix socket, by uvicorn."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http import httptools_impl

from buntime.config import BadSetting
from buntime.web.websocket import LARGEST_MESSAGE, PING_SECONDS, Connection

STOP_SECONDS = 10  # for requests that run when the server stops
BODY_WAITING = 1 << 20  # bytes
LARGE = 64 << 10  # bytes
STARTED_LOOK_SECONDS = 0.005


class _Cycle(httptools_impl.RequestResponseCycle):
    """A request and its answer."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.transport = HeadFirst(self.transport)  # type: ignore[assignment]


class HeadFirst:
    """Writes the head of an answer together with the first part of its body, if that follows at once. Each write is a
    system call, and may wake the edge."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def write(self, data: bytes) -> None:
        head, self._head = self._head, b""
        if not head and data.startswith(b"HTTP/"):
            self._head = data
            asyncio.get_running_loop().call_soon(self._flush)
        elif head and len(data) <= LARGE:
            self._transport.write(head + data)
        else:
            self._transport.writelines([head, data] if head else [data])

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        """Nothing has followed at once."""
        if self._head and not self.is_closing():
            self.write(b"")


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """`main` handles signals: uvicorn's way would end the process before sandboxes are let go in order."""
        yield


@asynccontextmanager
async def served(app: ASGIApp, path: Path, name: str) -> AsyncIterator[None]:
    """Serves the application within the block, on a socket that only root can open. Raises BadSetting."""
    # uvicorn stops reading a body when this much of it waits for the application, and goes on when that was taken. Its
    # 64 KiB would cost more time than the reading itself. `web.bodies.BodyMemory` bounds what is held in all.
    httptools_impl.HIGH_WATER_LIMIT = BODY_WAITING  # type: ignore[attr-defined]
    httptools_impl.RequestResponseCycle = _Cycle  # type: ignore[assignment, misc]
    listener = _listener(path)
    try:
        server = _Server(_settings(app))
        serving = asyncio.create_task(server.serve([listener]), name=name)
        while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(STARTED_LOOK_SECONDS)
        try:
            if not server.started:
                raise BadSetting(f"the server did not start to listen on {path} ({name}).")
            yield
        finally:
            server.should_exit = True
            await serving
    finally:
        listener.close()
        path.unlink(missing_ok=True)  # noqa: ASYNC240 - no disk is waited for


def _settings(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        http="httptools",
        ws=Connection,
        ws_max_size=LARGEST_MESSAGE,
        ws_ping_interval=PING_SECONDS,
        ws_ping_timeout=None,  # a client that types into a program that does not read has to wait
        ws_per_message_deflate=False,
        lifespan="off",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=STOP_SECONDS,
        backlog=4096,
        server_header=False,
        date_header=False,
        proxy_headers=False,
    )


def _listener(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    return listener
