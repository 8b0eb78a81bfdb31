"""A watched connection to a guest: it ends when it receives what our guest never sends.

aiohttp bounds the memory of an answer, but not the work of reading one. An impostor could keep the whole server busy
with interim responses, chunk extensions or chunks of one byte.
"""

from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

PIECE = 32 << 10  # bytes that are parsed before each check: at worst a few ms of work
SLACK = 64 << 10  # bytes that may surround the body: headers and chunk sizes
SWITCHING_PROTOCOLS = 101


class NoGuest(aiohttp.ClientError):
    """The answer cannot come from our guest."""


class WatchedConnector(aiohttp.TCPConnector):
    """Opens watched connections."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._factory = partial(WatchedConnection, loop=self._loop)  # type: ignore[assignment]  # a subclass


class WatchedConnection(ResponseHandler):
    """Refuses interim responses, and answers with more bytes around their body than in it."""

    _read = 0  # bytes of this answer so far
    _body: StreamReader = EMPTY_PAYLOAD
    _watched = True

    def set_response_params(self, **params: Any) -> None:
        """Starts a new request on this connection."""
        self._read, self._body = 0, EMPTY_PAYLOAD
        super().set_response_params(**params)

    def data_received(self, data: bytes) -> None:
        if not data or not self._watched:
            super().data_received(data)
            return
        for start in range(0, len(data), PIECE):
            piece = data[start : start + PIECE] if len(data) > PIECE else data
            self._read += len(piece)
            super().data_received(piece)
            body = self._body.total_bytes
            if self._watched and self._read - body > body + SLACK:
                self._refuse("it sends more bytes around its answer than in it")
            if self.transport is None or self.transport.is_closing():
                return

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Called when the head of an answer has been read."""
        message, body = data
        if message.code < 200 and message.code != SWITCHING_PROTOCOLS:
            self._refuse("it sends interim responses")
            return
        self._watched = message.code != SWITCHING_PROTOCOLS  # after an upgrade it is not HTTP
        self._body = body
        super().feed_data(data, size)

    def _refuse(self, why: str) -> None:
        refusal = NoGuest(f"this is not our guest: {why}")
        self.abort()  # first, because it clears the exception
        if not self._body.is_eof():
            self._body.set_exception(refusal)
        self.set_exception(refusal)
