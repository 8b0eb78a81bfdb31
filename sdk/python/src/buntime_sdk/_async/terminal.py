"""A terminal: bytes to and from a shell."""

import json
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from buntime_sdk._async.calls import AsyncCalls
from buntime_sdk.deadlines import Deadline
from buntime_sdk.dialing import AsyncSocket
from buntime_sdk.errors import ConnectionFailed, InvalidState, RequestTimeout, error_of
from buntime_sdk.failures import read_json
from buntime_sdk.from_json import from_wire
from buntime_sdk.shapes import TerminalEnd

LAST_WORDS_SECONDS = 1.0  # to receive what came before a connection's end
NOT_READY = {
    "code": "unexpected_answer",
    "message": "The terminal's first frame is not ready. Is this a buntime server?",
}


class AsyncTerminal:
    """Iterate over it to read its output. Iteration stops when the terminal ends; `end` then says how.

    Leaving the block closes the connection. The shell keeps running, and `terminal(terminal_id=…)` reconnects to it.
    """

    def __init__(self, socket: AsyncSocket, told: Mapping[str, Any]) -> None:
        self.id: str = told["terminalId"]
        self.resumed: bool = told["resumed"]
        self.end: TerminalEnd | None = None
        self._socket = socket
        self._unread: deque[str | bytes] = deque()  # received to learn of the end, before `read` asked
        self._is_reading = False
        self._is_closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (output := await self.read()) is not None:
            yield output

    async def read(self, timeout: float | None = None) -> bytes | None:
        """Returns the next output, or None at the end.

        `timeout`: seconds to wait for output, from 0; None, the default, is no bound. Past it, the terminal goes on and
        no output is lost. Raises TimeoutError then, and ConnectionFailed when the connection breaks.
        """
        deadline = Deadline.after(timeout)
        while self.end is None:
            frame = await self._next(deadline)
            if isinstance(frame, bytes):
                return frame
            if frame is None:
                return None
            told = json.loads(frame)
            if told["type"] == "error":
                raise error_of(told["error"], None)
            self.end = _end_in(told)
        return None

    async def write(self, keys: str | bytes) -> None:
        """Types on the terminal. `keys`: text or bytes. Raises InvalidState if it has ended, and ConnectionFailed."""
        await self._send(keys.encode() if isinstance(keys, str) else keys)

    async def resize(self, cols: int, rows: int) -> None:
        """Sets the window's size. `cols`, `rows`: 2 to 500 each. Raises InvalidState if it has ended, and
        ConnectionFailed.
        """
        await self._send(json.dumps({"type": "resize", "cols": cols, "rows": rows}))

    async def close(self) -> None:
        """Disconnects. The shell keeps running: to end it, type `exit` or delete its session."""
        self._is_closed = True
        await self._socket.close()

    async def _next(self, deadline: Deadline) -> str | bytes | None:
        """Returns the next frame. Raises TimeoutError."""
        if self._unread:
            return self._unread.popleft()
        self._is_reading = True
        try:
            return await self._socket.receive(deadline.left if deadline.is_bound else None)
        except TimeoutError:
            raise TimeoutError(f"No output of terminal {self.id} within {deadline.seconds:g} seconds.") from None
        finally:
            self._is_reading = False

    async def _send(self, message: str | bytes) -> None:
        if self._is_closed:
            raise ConnectionFailed("This connection to the terminal was closed here: open it again.", begun=False)
        if self.end is not None:
            raise _ended(self.id, self.end)
        try:
            await self._socket.send(message)
        except ConnectionFailed as broken:
            end = self.end or await self._end_ahead()
            if end is None:
                raise
            raise _ended(self.id, end) from broken

    async def _end_ahead(self) -> TerminalEnd | None:
        """Returns how the terminal ended, if a frame that nobody has read yet says so. `read` returns them all."""
        if not self._is_reading:
            with suppress(ConnectionFailed, TimeoutError):
                while (frame := await self._socket.receive(LAST_WORDS_SECONDS)) is not None:
                    self._unread.append(frame)
        ends = (_end_in(json.loads(frame)) for frame in self._unread if isinstance(frame, str))
        return next((end for end in ends if end is not None), None)


def _end_in(told: Mapping[str, Any]) -> TerminalEnd | None:
    return from_wire(TerminalEnd, told) if told["type"] in ("exit", "detached") else None


def _ended(terminal_id: str, end: TerminalEnd) -> InvalidState:
    if end.type == "detached":
        how = "another client took it over"
    elif end.exit_code is None:
        how = f"its shell was ended ({end.reason})"
    else:
        how = f"its shell exited with code {end.exit_code}"
    details = {"terminalId": terminal_id, "type": end.type, "exitCode": end.exit_code, "reason": end.reason}
    return InvalidState(f"The terminal has ended: {how}.", code="invalid_state", details=details)


def _ready_in(first: str | bytes | None) -> Mapping[str, Any]:
    """Returns what the first frame says. Raises an error unless it says that the terminal is ready."""
    if first is None:
        raise ConnectionFailed("The connection ended before the terminal was ready.", begun=True)
    told = read_json(first) if isinstance(first, str) else None
    if isinstance(told, dict) and told.get("type") == "ready":
        return told
    shown = told.get("error") if isinstance(told, dict) else None
    raise error_of(shown or NOT_READY, None)


async def open_terminal(calls: AsyncCalls, path: str, query: Mapping[str, object]) -> AsyncTerminal:
    """Returns the terminal once its first frame says that it is ready."""

    async def greeted(socket: AsyncSocket) -> AsyncTerminal:
        try:
            first = await socket.receive(calls.timeout)
        except TimeoutError:
            raise RequestTimeout(f"The terminal was not ready within {calls.timeout:g} seconds.") from None
        return AsyncTerminal(socket, _ready_in(first))

    return await calls.socket(path, query, greeted, repeatable=query["terminalId"] is not None)
