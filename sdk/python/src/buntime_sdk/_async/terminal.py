"""A terminal: bytes of a shell, both ways."""

import json
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self

from buntime_sdk._async.calls import AsyncCalls
from buntime_sdk.dialing import AsyncSocket
from buntime_sdk.errors import ConnectionFailed, error_of
from buntime_sdk.shapes import TerminalEnd, from_wire


class AsyncTerminal:
    """Its output by iterating over it, which ends with the terminal: then `end` says how.

    Leaving its block closes the connection; the shell goes on, and `terminal(terminal_id=…)` takes it up again.
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
        """What it shows next; None at its end. Raises ConnectionFailed where the connection breaks."""
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
        """What is typed. Raises ConnectionFailed."""
        await self._socket.send(keys.encode() if isinstance(keys, str) else keys)

    async def resize(self, cols: int, rows: int) -> None:
        """2 to 500 each. Raises ConnectionFailed."""
        await self._socket.send(json.dumps({"type": "resize", "cols": cols, "rows": rows}))

    async def close(self) -> None:
        """Leaves it. The shell goes on: type `exit`, or delete its session, to end it."""
        await self._socket.close()


async def open_terminal(calls: AsyncCalls, path: str, query: Mapping[str, object]) -> AsyncTerminal:
    """Its first frame says that it is ready."""
    socket = await calls.socket(path, query, repeatable=query["terminalId"] is not None)
    first = await socket.receive()
    told = json.loads(first) if isinstance(first, str) else {}
    if told.get("type") == "ready":
        return AsyncTerminal(socket, told)
    await socket.close()
    if first is None:
        raise ConnectionFailed("The connection ended before the terminal was ready.", begun=True)
    raise error_of(told.get("error"), None)
