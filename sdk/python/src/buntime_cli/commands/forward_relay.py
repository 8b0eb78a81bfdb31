"""Carries HTTP and WebSocket from a local port to a preview, which may need a token.

Only the head of a request is changed. Its body, and the whole response, pass as they are. One connection has one
request: the changed head says so to the server.
"""

import asyncio
import re
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

from buntime_sdk import BuntimeError, ConnectionFailed

LARGEST_HEAD = 65536  # bytes
HEAD_SECONDS = 60.0  # browsers open connections that they use later
CHUNK = 65536
TOKEN = "x-preview-token"  # noqa: S105 - a header's name
REPLACED = frozenset({"host", "connection", "keep-alive", "proxy-connection", TOKEN})
FIRST_LINE = re.compile(r"[A-Z]+ [/*]\S* HTTP/1\.[01]")
LOCAL_NAME = re.compile(r"(localhost|[a-z0-9.-]+\.localhost|127\.0\.0\.1|\[::1\])(:\d+)?", re.IGNORECASE)


class HeadRefused(Exception):
    """The request is not carried. The message is the status line's end."""


def carried_head(head: bytes, preview: SplitResult, token: str) -> bytes:
    """The request's head for the preview. Raises HeadRefused.

    A web page of another origin may reach the local port under a name of its own, so only local names are accepted.
    """
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    pairs = [(name.lower(), name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    host = next((value for lower, _, value in pairs if lower == "host"), "")
    if FIRST_LINE.fullmatch(first) is None:
        raise HeadRefused("400 Bad Request")
    if LOCAL_NAME.fullmatch(host) is None:
        raise HeadRefused("421 Misdirected Request")
    upgrades = any(lower == "upgrade" for lower, _, _ in pairs)
    kept = [
        f"{name}: {_as_seen_there(lower, value, host, preview)}"
        for lower, name, value in pairs
        if lower not in REPLACED
    ]
    added = [
        f"Host: {preview.netloc}",
        f"X-Preview-Token: {token}",
        f"Connection: {'Upgrade' if upgrades else 'close'}",
    ]
    return ("\r\n".join([first, *added, *kept]) + "\r\n\r\n").encode("latin-1")


def _as_seen_there(name: str, value: str, host: str, preview: SplitResult) -> str:
    """Development servers compare the page's address with the host that they are asked for."""
    ours = f"http://{host}"
    if name not in ("origin", "referer") or not (value == ours or value.startswith(ours + "/")):
        return value
    return f"{preview.scheme}://{preview.netloc}{value.removeprefix(ours)}"


def is_unauthorized(answer: bytes) -> bool:
    """Whether the server, not the session's program, refused the token."""
    head = answer.partition(b"\r\n\r\n")[0].lower()
    return head.startswith(b"http/1.1 401") and b"\r\nx-preview-error:" in head


class Tokens(Protocol):
    async def get(self) -> str:
        """A token that is valid. Raises BuntimeError."""

    def refused(self) -> None:
        """The server no longer accepts the last token."""


class ForwardRelay:
    """`api`: the server's URL, to which it connects. `preview`: the URL that the session's program is asked for."""

    def __init__(self, api: str, preview: str, tokens: Tokens, on_failure: Callable[[BuntimeError], None]) -> None:
        self._api, self._preview = urlsplit(api), urlsplit(preview)
        self.tokens = tokens
        self._on_failure = on_failure
        self._tls = ssl.create_default_context() if self._api.scheme == "https" else None

    async def listen(self, port: int) -> asyncio.Server:
        """Listens on the local port, 0 for a free one. Raises OSError."""
        return await asyncio.start_server(self._carry, "127.0.0.1", port, limit=LARGEST_HEAD)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, TimeoutError):
            try:
                await self._connect(reader, writer)
            except HeadRefused as refused:
                await _say(writer, str(refused))
            except asyncio.IncompleteReadError:
                pass  # a browser closed a connection that it did not use
            except asyncio.LimitOverrunError:
                await _say(writer, "431 Request Header Fields Too Large")
            except BuntimeError as failure:
                self._on_failure(failure)
                await _say(writer, "502 Bad Gateway")
        writer.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HEAD_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        carried = carried_head(head, self._preview, await self.tokens.get())
        port = self._api.port or (443 if self._tls else 80)
        name = self._preview.hostname if self._tls and self._preview.scheme == "https" else None
        try:
            there, away = await asyncio.open_connection(self._api.hostname, port, ssl=self._tls, server_hostname=name)
        except OSError as failed:
            raise ConnectionFailed(f"Cannot connect to {self._api.netloc}: {failed}", begun=False) from failed
        try:
            away.write(carried)
            back = asyncio.create_task(self._answer(there, writer), name="answer")
            forth = asyncio.create_task(_copy(reader, away), name="request")
            _, left = await asyncio.wait({back, forth}, return_when=asyncio.FIRST_COMPLETED)
            for task in left:
                task.cancel()
            await asyncio.gather(back, forth, return_exceptions=True)
        finally:
            away.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(CHUNK)
        if is_unauthorized(first):
            self.tokens.refused()
        writer.write(first)
        await _copy(reader, writer)
        await writer.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while part := await reader.read(CHUNK):
        writer.write(part)
        await writer.drain()


async def _say(writer: asyncio.StreamWriter, status: str) -> None:
    writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
    await writer.drain()
