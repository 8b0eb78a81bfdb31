"""A client for streaming answers. It reads Server-Sent Events as they arrive."""

import json
import socket
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

from tests.acceptance.client import PATIENCE, Client, Reply, Session

type Event = tuple[str, Any]  # name, data


class Events:
    """One streaming answer on its own connection. Raises ConnectionError if it breaks off.

    `small` makes the receive buffer small, so that a client that does not read holds the server up soon.
    """

    def __init__(self, client: Client, method: str, path: str, body: object = None, *, small: bool = False) -> None:
        self.socket = socket.socket()
        if small:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(("127.0.0.1", client.port))
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {client.key}\r\n"
        if body is not None:
            head += f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        self.socket.sendall(head.encode() + b"\r\n" + content)
        self.file = self.socket.makefile("rb")
        self._status = 0
        self._headers: dict[str, str] = {}

    @property
    def status(self) -> int:
        """The status; waits for the head of the answer."""
        if not self._status:
            self._status = int(self._line().split()[1])
            while line := self._line():
                name, _, value = line.decode().partition(":")
                self._headers[name.lower()] = value.strip()
        return self._status

    def parts(self) -> Iterator[bytes]:
        """Yields the chunks of the body as they arrive."""
        assert self.status == 200, self.refusal().shown()
        while size := int(self._line(), 16):
            yield self._exactly(size)
            self._line()

    def __iter__(self) -> Iterator[Event]:
        rest = b""
        for part in self.parts():
            *blocks, rest = (rest + part).split(b"\n\n")
            for block in blocks:
                if (event := _event(block)) is not None:
                    yield event
        assert not rest

    def refusal(self) -> Reply:
        """Returns an answer that is not a stream."""
        assert self.status
        return Reply(self._status, self._headers, self._exactly(int(self._headers["content-length"])))

    def __enter__(self) -> "Events":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.file.close()
        self.socket.close()

    def _line(self) -> bytes:
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the answer breaks off")
        return line[:-2]

    def _exactly(self, size: int) -> bytes:
        content = self.file.read(size)
        if len(content) < size:
            raise ConnectionError("the answer breaks off")
        return content


def _event(block: bytes) -> Event | None:
    fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if not line.startswith(b":"))
    if not fields:
        return None
    return fields[b"event"].decode(), json.loads(fields[b"data"])


def stream(session: Session, *, small: bool = False, **fields: Any) -> Events:
    """Starts a run and returns its stream."""
    return Events(session.client, "POST", "/execute", {"sessionId": session.id, "stream": True, **fields}, small=small)


def watch(session: Session, path: str = ".", *, recursive: bool = True, small: bool = False) -> Events:
    query = urlencode({"sessionId": session.id, "path": path, "recursive": str(recursive).lower()})
    return Events(session.client, "GET", f"/files/watch?{query}", small=small)


def text_of(events: list[Event], name: str = "stdout") -> str:
    return "".join(data["data"] for kind, data in events if kind == name)


def end_of(events: list[Event]) -> Mapping[str, Any]:
    """Returns the data of the event that ends a run. Asserts that there is exactly one, and that it is last."""
    ends = [(name, data) for name, data in events if name in ("result", "error")]
    assert len(ends) == 1, ends
    assert events[-1] == ends[0]
    return dict(ends[0][1])
