"""A terminal: bytes to and from a shell."""

import json
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self

from buntime_sdk._async.calls import AsyncCalls
from buntime_sdk.dialing import AsyncSocket
from buntime_sdk.errors import ConnectionFailed, error_of
from buntime_sdk.shapes import TerminalEnd, from_wire


class AsyncTerminal:
    """Iterate over it to read its output. Iteration stops when the terminal ends; `end` then says how.

    Leaving the block closes the connection. The shell keeps running, and `terminal(terminal_id=…)` reconnects to it.
    """

    def __init__(self, socket: AsyncSocket, told: Mapping[str, Any]) -> None:
        self.id: str = told["terminalId"]
        self.resumed: bool = told["resumed"]
        self.end: TerminalEnd | None = None
        self._socket = socket

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (output := await self.read()) is not None:
            yield output

    async def read(self) -> bytes | None:
        """Returns the next output, or None at the end. Raises ConnectionFailed when the connection breaks."""
        while self.end is None:
            frame = await self._socket.receive()
            if isinstance(frame, bytes):
                return frame
            if frame is None:
                return None
            told = json.loads(frame)
            if told["type"] == "error":
                raise error_of(told["error"], None)
            if told["type"] in ("exit", "detached"):
                self.end = from_wire(TerminalEnd, told)
        return None

    async def write(self, keys: str | bytes) -> None:
        """Types on the terminal. `keys`: text or bytes. Raises ConnectionFailed."""
        await self._socket.send(keys.encode() if isinstance(keys, str) else keys)

    async def resize(self, cols: int, rows: int) -> None:
        """Sets the window's size. `cols`, `rows`: 2 to 500 each. Raises ConnectionFailed."""
        await self._socket.send(json.dumps({"type": "resize", "cols": cols, "rows": rows}))

    async def close(self) -> None:
        """Disconnects. The shell keeps running: to end it, type `exit` or delete its session."""
        await self._socket.close()


async def open_terminal(calls: AsyncCalls, path: str, query: Mapping[str, object]) -> AsyncTerminal:
    """Returns the terminal once its first frame says that it is ready."""
    socket = await calls.socket(path, query, repeatable=query["terminalId"] is not None)
    first = await socket.receive()
    told = json.loads(first) if isinstance(first, str) else {}
    if told.get("type") == "ready":
        return AsyncTerminal(socket, told)
    await socket.close()
    if first is None:
        raise ConnectionFailed("The connection ended before the terminal was ready.", begun=True)
    raise error_of(told.get("error"), None)
