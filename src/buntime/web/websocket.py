"""WebSockets beside the API's requests: their bounds, and how a refusal before the upgrade is an ordinary answer."""

from starlette.types import Message, Send
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

LARGEST_MESSAGE = 2 << 20  # bytes, of what a client sends at once: a large paste
PING_SECONDS = 20.0  # ours: proxies cut what is silent
MOST_FRAGMENTS = 1024  # of one message
MOST_PONGS = 1 << 20  # bytes that wait for a client who asks and does not listen


class Connection(WebSocketsSansIOProtocol):
    """What uvicorn leaves unbounded: pongs for a client that reads nothing, and the fragments of one message. And who
    takes nothing keeps nothing: a connection is cut some seconds after we are done with it."""

    def handle_ping(self) -> None:
        super().handle_ping()
        if self.transport.get_write_buffer_size() > MOST_PONGS:
            self.transport.abort()

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= MOST_FRAGMENTS:
            self.transport.abort()
        else:
            super().handle_cont(event)

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if self.close_sent:  # by an ordinary answer too, of which uvicorn thinks as of a handshake that was forgotten
            self.handshake_complete = True

    async def run_asgi(self) -> None:
        await super().run_asgi()
        if not self.disconnected:
            self.loop.call_later(self.close_timeout, self.transport.abort)


def refusing(send: Send) -> Send:
    """Takes the messages of an ordinary answer in the place of the upgrade."""

    async def sent(message: Message) -> None:
        if message["type"].startswith("http.response."):
            message = {**message, "type": f"websocket.{message['type']}"}
        await send(message)

    return sent
