"""The terminals' WebSocket, over a real connection."""

import asyncio
import functools
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import websockets.asyncio.client
import websockets.sync.client
from buntime_sdk import AsyncBuntime, Buntime
from stand_in import KEY, PATIENCE
from websockets.asyncio.server import ServerConnection, serve

FRAMES = 60  # more than the library buffers before a read
UNREAD = 1.5  # seconds: long enough for many pings


def impatient(connect: Callable[..., Any]) -> Callable[..., Any]:
    """Pings often, and waits as briefly for the pong, unless the SDK sets its own time."""

    @functools.wraps(connect)
    def connected(url: str, **options: Any) -> Any:
        return connect(url, **{"ping_timeout": 0.2, **options, "ping_interval": 0.2})

    return connected


@asynccontextmanager
async def talkative() -> AsyncIterator[str]:
    """Yields the base URL of a server whose terminals send more than fits unread."""

    async def show(connection: ServerConnection) -> None:
        await connection.send(json.dumps({"type": "ready", "terminalId": "term_1", "resumed": False}))
        for number in range(FRAMES):
            await connection.send(b"line %d\n" % number)
        await connection.send(json.dumps({"type": "exit", "exitCode": 0, "reason": None}))
        await connection.close()

    async with asyncio.timeout(PATIENCE), serve(show, "127.0.0.1", 0, ping_interval=None) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_terminal_stays_open_while_it_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websockets.asyncio.client, "connect", impatient(websockets.asyncio.client.connect))
    async with (
        talkative() as url,
        AsyncBuntime(KEY, url) as client,
        client.sessions.open("ses_1").terminal() as terminal,
    ):
        await asyncio.sleep(UNREAD)
        assert len([shown async for shown in terminal]) == FRAMES


async def test_a_sync_terminal_stays_open_while_it_is_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(websockets.sync.client, "connect", impatient(websockets.sync.client.connect))

    def read(url: str) -> int:
        with Buntime(KEY, url) as client, client.sessions.open("ses_1").terminal() as terminal:
            time.sleep(UNREAD)
            return len(list(terminal))

    async with talkative() as url:
        assert await asyncio.to_thread(read, url) == FRAMES
