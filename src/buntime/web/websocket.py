"""WebSockets: their limits, and how a failure before the upgrade becomes an ordinary HTTP answer."""

import asyncio
from typing import Any

from starlette.types import Message, Scope, Send
from uvicorn._types import ASGIReceiveEvent, ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame
from websockets.http11 import Request
from websockets.protocol import State

LARGEST_MESSAGE = 2 << 20  # bytes of one message from a client: a large paste
SLICE = 8 << 10  # bytes that are parsed at once: a few ms of work at worst
PING_SECONDS = 20.0  # between the server's pings: proxies cut silent connections
MOST_FRAGMENTS = 1024  # in one message
FINAL_BINARY = 0x82  # the first byte of a message in one frame
LEFT = "buntime_left"  # in the scope's state
MOST_PONGS = 1 << 20  # bytes of pongs that wait for a client that pings but does not read


class Connection(WebSocketsSansIOProtocol):
    """Adds limits that uvicorn lacks.

    - Pongs for a client that does not read, and fragments of one message, are bounded.
    - Tiny messages cost far more than their bytes. Received data is parsed in slices, so that other connections get
      their turn, and waiting binary messages are joined.
    - A connection is aborted a few seconds after the application is done with it, even if the client does not read.
    - `left` tells that a client has left, even before its last messages are read.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._unread: bytearray | None = None  # the last binary message that waits
        self._backlog = bytearray()  # received, not yet parsed
        self._behind = False  # the backlog is not empty: reading is paused
        self._left = asyncio.Event()

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            self.scope["state"][LEFT] = self._left

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._left.set()

    def data_received(self, data: bytes) -> None:
        if self._behind:
            self._backlog += data
            return
        super().data_received(data[:SLICE])
        if len(data) > SLICE:
            self._backlog += data[SLICE:]
            self._behind = True
            self.transport.pause_reading()
            self.loop.call_soon(self._catch_up)

    def _catch_up(self) -> None:
        if self.disconnected or self.transport.is_closing():
            self._backlog.clear()
            return
        slice_, self._backlog[:SLICE] = bytes(self._backlog[:SLICE]), b""
        super().data_received(slice_)
        if self._backlog:
            self.loop.call_soon(self._catch_up)
            return
        self._behind = False
        if not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def handle_ping(self) -> None:
        super().handle_ping()
        if self.transport.get_write_buffer_size() > MOST_PONGS:
            self.transport.abort()

    def handle_cont(self, event: Frame) -> None:
        if self.close_sent:
            return
        if len(self.frames) < MOST_FRAGMENTS:
            super().handle_cont(event)
            return
        self.frames = []
        self.conn.send_close(CloseCode.MESSAGE_TOO_BIG)
        self.handle_parser_exception()

    def send_receive_event_to_app(self) -> None:
        if self.close_sent:
            self.frames = []
            return
        content = b"".join(self.frames)
        if self.curr_msg_data_type == "text":
            self._unread = None
            if not _is_text(content):
                self.conn.send_close(CloseCode.INVALID_DATA)
                self.handle_parser_exception()
                return
        elif self._unread is None:
            self._unread = bytearray(content)
            self.frames = [self._unread]  # type: ignore[list-item]  # the receiver treats it as bytes
        else:
            self._unread += content
            self._pause_reading()
            return
        # uvicorn pauses reading at each message, which costs system calls. One that waits alone needs none.
        waits_alone = self.queue.empty() and not self.read_paused
        self.read_paused = self.read_paused or waits_alone
        super().send_receive_event_to_app()
        self.read_paused = self.read_paused and not waits_alone

    def _pause_reading(self) -> None:
        if not self.read_paused:
            self.read_paused = True
            self.transport.pause_reading()

    async def receive(self) -> ASGIReceiveEvent:
        message = await super().receive()
        if message.get("bytes") is self._unread:
            self._unread = None
        if self._behind and not self.transport.is_closing():
            self.transport.pause_reading()  # uvicorn resumes reading, but the backlog comes first
        return message

    async def send(self, message: ASGISendEvent) -> None:
        content = message.get("bytes")
        if isinstance(content, bytes) and self._is_writable:
            self.transport.write(_binary(content))
            return
        await super().send(message)
        if self.close_sent:  # also by an ordinary answer, which uvicorn would report as an incomplete handshake
            self.handshake_complete = True

    @property
    def _is_writable(self) -> bool:
        """Whether a message can be written without the library's own steps, which cost a key of a terminal most."""
        ends = self.close_sent or self.disconnected or self.transport.is_closing()
        return self.handshake_complete and self.writable.is_set() and self.conn.state is State.OPEN and not ends

    async def run_asgi(self) -> None:
        await super().run_asgi()
        if not self.disconnected:
            self.loop.call_later(self.close_timeout, self.transport.abort)


def _binary(content: bytes) -> bytes:
    """A whole message in one frame."""
    size = len(content)
    if size < 126:
        return bytes((FINAL_BINARY, size)) + content
    if size < 1 << 16:
        return bytes((FINAL_BINARY, 126)) + size.to_bytes(2) + content
    return bytes((FINAL_BINARY, 127)) + size.to_bytes(8) + content


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def left(scope: Scope) -> asyncio.Event:
    """Set when the client of the WebSocket has left."""
    event: asyncio.Event = scope["state"][LEFT]
    return event


def refusing(send: Send) -> Send:
    """Lets an ordinary HTTP answer replace the upgrade."""

    async def sent(message: Message) -> None:
        if message["type"].startswith("http.response."):
            message = {**message, "type": f"websocket.{message['type']}"}
        await send(message)

    return sent
