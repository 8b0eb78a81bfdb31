"""A connection to a guest that is watched: what no guest of ours would send ends it.

aiohttp bounds what it keeps of an answer, not what it takes to read one. An impostor could keep the whole
server busy with interim answers, with the names of chunks or with chunks of one byte.
"""

from functools import partial
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

PIECE = 32 << 10  # bytes that are read before the judgement: some ms of work at the worst
SLACK = 64 << 10  # bytes beside the body: a header, and of each chunk its size
SWITCHING_PROTOCOLS = 101


class NoGuest(aiohttp.ClientError):
    """What answered is not a guest of ours."""


class WatchedConnector(aiohttp.TCPConnector):
    """Makes watched connections."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._factory = partial(WatchedConnection, loop=self._loop)  # type: ignore[assignment]  # a kind of it


class WatchedConnection(ResponseHandler):
    """An answer may have no interim answers before it, and no more around its body than there is body."""

    _read = 0  # bytes of this answer
    _body: StreamReader = EMPTY_PAYLOAD
    _watched = True

    def set_response_params(self, **params: Any) -> None:
        """A new request on this connection."""
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
                self._refuse("it sends more around its answer than in it")
            if self.transport is None or self.transport.is_closing():
                return

    def feed_data(self, data: Any, size: int = 0) -> None:
        """The head of an answer has been read."""
        message, body = data
        if message.code < 200 and message.code != SWITCHING_PROTOCOLS:
            self._refuse("it sends interim answers")
            return
        self._watched = message.code != SWITCHING_PROTOCOLS  # from then on it is not HTTP
        self._body = body
        super().feed_data(data, size)

    def _refuse(self, why: str) -> None:
        refusal = NoGuest(f"this is no guest of ours: {why}")
        self.abort()  # first: it forgets the exception
        if not self._body.is_eof():
            self._body.set_exception(refusal)
        self.set_exception(refusal)
