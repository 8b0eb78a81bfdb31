"""The WebSocket of terminals, on a real one."""

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

FRAMES = 60  # more than the library takes in before somebody reads
UNREAD = 1.5  # seconds, of many pings


def impatient(connect: Callable[..., Any]) -> Callable[..., Any]:
    """Pings often, and allows as little for the answer where the SDK sets no time of its own."""

    @functools.wraps(connect)
    def connected(url: str, **options: Any) -> Any:
        return connect(url, **{"ping_timeout": 0.2, **options, "ping_interval": 0.2})

    return connected


@asynccontextmanager
async def talkative() -> AsyncIterator[str]:
    """The base URL of a server whose terminals say more than fits unread."""

    async def show(connection: ServerConnection) -> None:
        await connection.send(json.dumps({"type": "ready", "terminalId": "term_1", "resumed": False}))
        for number in range(FRAMES):
            await connection.send(b"line %d\n" % number)
        await connection.send(json.dumps({"type": "exit", "exitCode": 0, "reason": None}))
        await connection.close()

    async with asyncio.timeout(PATIENCE), serve(show, "127.0.0.1", 0, ping_interval=None) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_terminal_that_is_not_read_for_a_while_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websockets.asyncio.client, "connect", impatient(websockets.asyncio.client.connect))
    async with (
        talkative() as url,
        AsyncBuntime(KEY, url) as client,
        client.sessions.open("ses_1").terminal() as terminal,
    ):
        await asyncio.sleep(UNREAD)
        assert len([shown async for shown in terminal]) == FRAMES


async def test_a_terminal_that_is_not_read_for_a_while_stays_in_the_sync_half_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(websockets.sync.client, "connect", impatient(websockets.sync.client.connect))

    def read(url: str) -> int:
        with Buntime(KEY, url) as client, client.sessions.open("ses_1").terminal() as terminal:
            time.sleep(UNREAD)
            return len(list(terminal))

    async with talkative() as url:
        assert await asyncio.to_thread(read, url) == FRAMES
