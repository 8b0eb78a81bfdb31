# Made by `generate` from ../_async/terminal.py: change that.
"""A terminal: bytes of a shell, both ways."""

import json
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from buntime_sdk._sync.calls import Calls
from buntime_sdk.dialing import Socket
from buntime_sdk.errors import ConnectionFailed, error_of
from buntime_sdk.shapes import TerminalEnd, from_wire


class Terminal:
    """Its output by iterating over it, which ends with the terminal: then `end` says how.

    Leaving its block closes the connection; the shell goes on, and `terminal(terminal_id=…)` takes it up again.
    """

    def __init__(self, socket: Socket, told: Mapping[str, Any]) -> None:
        self.id: str = told["terminalId"]
        self.resumed: bool = told["resumed"]
        self.end: TerminalEnd | None = None
        self._socket = socket

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[bytes]:
        while (output := self.read()) is not None:
            yield output

    def read(self) -> bytes | None:
        """What it shows next; None at its end. Raises ConnectionFailed where the connection breaks."""
        while self.end is None:
            frame = self._socket.receive()
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

    def write(self, keys: str | bytes) -> None:
        """What is typed. Raises ConnectionFailed."""
        self._socket.send(keys.encode() if isinstance(keys, str) else keys)

    def resize(self, cols: int, rows: int) -> None:
        """2 to 500 each. Raises ConnectionFailed."""
        self._socket.send(json.dumps({"type": "resize", "cols": cols, "rows": rows}))

    def close(self) -> None:
        """Leaves it. The shell goes on: type `exit`, or delete its session, to end it."""
        self._socket.close()


def open_terminal(calls: Calls, path: str, query: Mapping[str, object]) -> Terminal:
    """Its first frame says that it is ready."""
    socket = calls.socket(path, query, repeatable=query["terminalId"] is not None)
    first = socket.receive()
    told = json.loads(first) if isinstance(first, str) else {}
    if told.get("type") == "ready":
        return Terminal(socket, told)
    socket.close()
    if first is None:
        raise ConnectionFailed("The connection ended before the terminal was ready.", begun=True)
    raise error_of(told.get("error"), None)
