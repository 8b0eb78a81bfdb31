"""WebSockets, which only terminals need. The library is imported when the first one opens."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol, TypeAlias
from urllib.parse import urlsplit

from buntime_sdk.errors import BuntimeError, ConnectionFailed, error_of, seconds_of

LARGEST_MESSAGE = 1 << 22
GOODBYE_SECONDS = 1.0  # to wait for the server's close frame, which comes after all unread output


class AsyncSocket(Protocol):
    """`receive` returns None after a clean close. It raises ConnectionFailed when the connection breaks, and
    TimeoutError when nothing arrives within `timeout` seconds, of which nothing is lost.
    """

    async def receive(self, timeout: float | None = None) -> str | bytes | None: ...
    async def send(self, message: str | bytes) -> None: ...
    async def close(self) -> None: ...


class Socket(Protocol):
    def receive(self, timeout: float | None = None) -> str | bytes | None: ...
    def send(self, message: str | bytes) -> None: ...
    def close(self) -> None: ...


AsyncDial: TypeAlias = Callable[[str, Mapping[str, str], float], Coroutine[Any, Any, AsyncSocket]]
Dial: TypeAlias = Callable[[str, Mapping[str, str], float], Socket]

CLOSED_IN_ORDER = 1000
# No ping timeout: the pong waits behind unread output, or behind typed text that no program reads.
NO_END: float | None = None


async def async_dial(url: str, headers: Mapping[str, str], timeout: float) -> AsyncSocket:
    """`timeout`: seconds for opening. Raises ConnectionFailed, or the server's refusal."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

    class Open:
        async def receive(self, timeout: float | None = None) -> str | bytes | None:
            try:
                async with asyncio.timeout(timeout):
                    return await connection.recv()
            except ConnectionClosed as closed:
                _require_order(closed, url)
                return None

        async def send(self, message: str | bytes) -> None:
            try:
                await connection.send(message)
            except ConnectionClosed as closed:
                raise _lost(closed, url) from closed

        async def close(self) -> None:
            await connection.close()

    try:
        connection = await connect(
            _ws(url),
            additional_headers=dict(headers),
            open_timeout=timeout,
            close_timeout=GOODBYE_SECONDS,
            ping_timeout=NO_END,
            max_size=LARGEST_MESSAGE,
            compression=None,
        )
    except InvalidStatus as refused:
        raise _refusal(refused) from refused
    except (OSError, InvalidHandshake, TimeoutError) as failed:
        raise ConnectionFailed(f"Cannot connect to {_server(url)}: {failed}", begun=False) from failed
    return Open()


def dial(url: str, headers: Mapping[str, str], timeout: float) -> Socket:
    """The sync version. One thread may send while another receives."""
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
    from websockets.sync.client import connect

    class Open:
        def receive(self, timeout: float | None = None) -> str | bytes | None:
            try:
                return connection.recv(timeout)
            except ConnectionClosed as closed:
                _require_order(closed, url)
                return None

        def send(self, message: str | bytes) -> None:
            try:
                connection.send(message)
            except ConnectionClosed as closed:
                raise _lost(closed, url) from closed

        def close(self) -> None:
            connection.close()

    try:
        connection = connect(
            _ws(url),
            additional_headers=dict(headers),
            open_timeout=timeout,
            close_timeout=GOODBYE_SECONDS,
            ping_timeout=NO_END,
            max_size=LARGEST_MESSAGE,
            compression=None,
        ).__enter__()  # avoids the library's warning; `close` ends it
    except InvalidStatus as refused:
        raise _refusal(refused) from refused
    except (OSError, InvalidHandshake, TimeoutError) as failed:
        raise ConnectionFailed(f"Cannot connect to {_server(url)}: {failed}", begun=False) from failed
    return Open()


def _ws(url: str) -> str:
    return "ws" + url.removeprefix("http")


def _require_order(closed: Any, url: str) -> None:
    """Raises ConnectionFailed unless one side closed the connection cleanly."""
    if closed.rcvd is not None and closed.rcvd.code == CLOSED_IN_ORDER:
        return
    if closed.sent is not None and closed.sent.code == CLOSED_IN_ORDER and closed.rcvd_then_sent is not True:
        return  # we closed it; other codes mean an invalid frame
    raise _lost(closed, url) from closed


def _lost(closed: BaseException, url: str) -> ConnectionFailed:
    return ConnectionFailed(f"The connection broke: {_server(url)}: {closed}", begun=True)


def _server(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _refusal(refused: Any) -> BuntimeError:
    response = refused.response
    try:
        shown = json.loads(response.body or b"")["error"]
    except (ValueError, KeyError, TypeError):
        shown = None
    after = seconds_of(response.headers.get("retry-after"))
    return error_of(shown, response.status_code, response.headers.get("x-request-id"), after)
