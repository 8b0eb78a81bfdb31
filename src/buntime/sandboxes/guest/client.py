"""Requests to the guest of one sandbox. Answers are checked like user input: the guest may be an impostor.

`guest/PROTOCOL.md` says how they travel, and `guest/native/server.c` lists them. Every method raises SandboxGone when
there is no proper answer. When the guest reports a failure, it raises the matching error of `failures.py`.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Annotated, Self
from urllib.parse import quote

import msgspec

from buntime.daemon.room import hold
from buntime.daemon.tasks import cancel_and_wait
from buntime.errors import BuntimeError, Unavailable
from buntime.ports import SandboxGone
from buntime.sandboxes.guest.failures import UNREADABLE, Impostor, NotKnown, SpareGone, Unfit, failure_of
from buntime.sandboxes.guest.large import AT_ONCE
from buntime.sandboxes.guest.link import LARGEST_REQUEST, PROTOCOL, Link, Stream
from buntime.sandboxes.kernel.oci import GUEST_PORT

LARGEST_JSON = 16 << 20  # bytes of the few answers that may be large because they hold many paths of any length
LARGEST_NUMBER = 2**53 - 1  # the largest that the store, JSON and JavaScript can all hold
OK = 200
type Count = Annotated[int, msgspec.Meta(ge=0, le=LARGEST_NUMBER)]
type Body = bytes | AsyncIterator[bytes]


class Nothing(msgspec.Struct):
    """An answer whose content does not matter. Decoding skips it, so it takes no memory."""


class _Health(msgspec.Struct):
    protocol: int


class _Spare(msgspec.Struct):
    pid: int


class _Status(msgspec.Struct):
    files: Count


class Links:
    """The connections to all guests. Leaving the block closes them."""

    def __init__(self) -> None:
        self._open: set[Link] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for link in list(self._open):
            link.abort()
        await asyncio.gather(*(link.lost() for link in self._open))

    async def connect(self, address: str, port: int, secret: str) -> Link:
        """Raises OSError and SandboxGone."""
        link = Link(self._open.discard)
        loop = asyncio.get_running_loop()
        connecting = loop.create_connection(lambda: link, address, port)
        try:
            # in a context of its own: the connection outlives the request that makes it, and keeps its context
            await loop.create_task(connecting, name=f"connection to {address}", context=Context())
            self._open.add(link)
            await link.greet(secret)
        except BaseException:
            link.abort()
            raise
        return link


class Answer:
    """What a guest answers, as it arrives."""

    def __init__(self, fields: Mapping[str, str], stream: Stream) -> None:
        self.fields = fields
        self._stream = stream

    async def read(self) -> bytes:
        """Some of its body; empty at the end. Raises Impostor and SandboxGone."""
        return await self._stream.read()

    def close(self) -> None:
        """Nobody reads the rest."""
        self._stream.close()


class Guest:
    def __init__(self, links: Links, address: str, secret: str, port: int = GUEST_PORT) -> None:
        self._links = links
        self._address = address
        self._port = port
        self._secret = secret
        self._link: Link | None = None
        self._connections = 0  # so far
        self._connecting = asyncio.Lock()

    @property
    def place(self) -> str:
        """Where the edge can connect to it: address:port."""
        return f"{self._address}:{self._port}"

    def packets(self) -> tuple[int, int]:
        """Which connection to it there is, and the bytes that its packets had. Raises OSError."""
        return self._connections, 0 if self._link is None else self._link.packet_bytes

    def hang_up(self, unused_since: float) -> None:
        """Closes the connection if nothing was asked since that time of the loop. The next request makes another one.

        A guest with a connection wakes about once a second: Bun keeps timers while it has one. Without, it rests.
        """
        if self._link is not None and self._link.is_open and self._link.is_unused_since(unused_since):
            self._link.abort()  # not `close`, which waits until the guest has read all
            self._link = None
            self._connections += 1  # what is counted of it from now on cannot be compared

    def expect(self) -> None:
        """A request will come soon."""
        if self._link is not None:
            self._link.note_use()

    def close(self) -> None:
        """Its sandbox has ended."""
        if self._link is not None:
            self._link.abort()
            self._link = None  # the garbage collector may not look at an ended sandbox for an hour

    async def check(self) -> None:
        """Raises SandboxGone unless a guest of this protocol answers."""
        try:
            health = await self.call("GET", "/health", {}, _Health)
        except Unavailable:  # this server is short of memory (see `room.py`); the guest did nothing wrong
            raise
        except BuntimeError as failed:
            raise SandboxGone(f"/health: {failed}") from failed
        if health.protocol != PROTOCOL:
            raise SandboxGone("the guest speaks another protocol")

    async def spare(self) -> int:
        """Parks a new process. Returns its pid inside the sandbox."""
        return (await self.call("POST", "/spares", {}, _Spare)).pid

    async def rehearse(self) -> None:
        """Makes the first run as fast as later ones. To be called before a session has the sandbox."""
        await self.call("POST", "/rehearsal", {}, Nothing)

    async def count_files(self) -> int:
        return (await self.call("GET", "/status", {}, _Status)).files

    async def call[T](
        self, method: str, path: str, query: Mapping[str, str], kind: type[T], body: Body = b"", *, most: int = AT_ONCE
    ) -> T:
        """The answer, decoded as `kind`. `most`: the largest answer in bytes; it is decoded in one piece."""
        return decoded(await self.fetch(method, path, query, most, body), kind, path)

    async def fetch(
        self, method: str, path: str, query: Mapping[str, str], most: int, body: Body = b""
    ) -> bytes | bytearray:
        """The whole body of the answer, at most `most` bytes."""
        async with self.request(method, path, query, body) as answer:
            return await _read_all(answer, most)

    @asynccontextmanager
    async def request(
        self, method: str, path: str, query: Mapping[str, str], body: Body = b""
    ) -> AsyncIterator[Answer]:
        """The answer, when its head has arrived. Raises what the parts of the body raise."""
        target = _target(method, path, query)
        link = await self._connected(path)
        sending: asyncio.Task[None] | None = None
        if isinstance(body, bytes) and len(target) + len(body) <= LARGEST_REQUEST:
            stream = link.ask(target, body)
        else:
            stream = link.begin(target)
            parts = _one(body) if isinstance(body, bytes) else body
            sending = asyncio.create_task(_send(stream, parts), name=f"body of {path}")
        try:
            head = await stream.head()
            answer = Answer(head.fields, stream)
            if head.status != OK:
                raise _told(failure_of(query, await _read_all(answer, AT_ONCE), head.status), path, query)
            yield answer
        finally:
            stream.close()
            if sending is not None:
                await cancel_and_wait(sending)

    @asynccontextmanager
    async def upload(self, path: str, query: Mapping[str, str]) -> AsyncIterator[Stream]:
        """A request whose body the caller sends, before the answer or after."""
        stream = (await self._connected(path)).begin(_target("POST", path, query))
        try:
            yield stream
        finally:
            stream.close()

    async def _connected(self, path: str) -> Link:
        if self._link is not None and self._link.is_open:
            return self._link
        async with self._connecting:
            if self._link is None or not self._link.is_open:
                self.close()
                try:
                    self._link = await self._links.connect(self._address, self._port, self._secret)
                    self._connections += 1
                except OSError as gone:
                    raise SandboxGone(f"{path}: {gone!r}") from gone
            return self._link


async def _send(stream: Stream, body: AsyncIterator[bytes]) -> None:
    """The body in parts. A failure of its source ends the request."""
    try:
        async for part in body:
            await stream.send(part)
        stream.finish()
    except Exception as failed:  # noqa: BLE001 - the one that asked raises it
        stream.close(failed)


async def _one(body: bytes) -> AsyncIterator[bytes]:
    yield body


def _target(method: str, path: str, query: Mapping[str, str]) -> bytes:
    """Method and path with the query, in which surrogates become the bytes they stand for."""
    said = "&".join([f"{name}={_quoted(value)}" for name, value in query.items()])
    return f"{method} {path}?{said}".encode() if said else f"{method} {path}".encode()


def _quoted(value: str) -> str:
    if value.isascii() and value.isalnum():  # most are numbers
        return value
    return quote(value, safe="", errors="surrogateescape")


def _told(failure: Exception, path: str, query: Mapping[str, str]) -> Exception:
    """The failure. Failures that callers of this path cannot handle become SandboxGone."""
    if isinstance(failure, SpareGone):
        known = "spare" in query and path != "/prepared/run"
    elif isinstance(failure, NotKnown):
        known = path in ("/feed/edge", "/services", "/processes/ends")
    else:
        known = not isinstance(failure, Unfit) or path in ("/prepared/run", "/spares/prepare")
    return failure if known else SandboxGone(f"{path}: the guest reports {failure!r}")


async def _read_all(answer: Answer, limit: int) -> bytes | bytearray:
    """The body. Raises SandboxGone when it is longer than `limit`."""
    body: bytes | bytearray = b""
    while part := await answer.read():
        if len(body) + len(part) > limit:
            raise SandboxGone("the guest answered with more than asked")
        hold(len(part))
        if not body:
            body = part
        else:
            if isinstance(body, bytes):
                body = bytearray(body)  # it grows in place; a list of parts would be copied in one go at the end
            body += part
    return body


def decoded[T](text: bytes | bytearray, kind: type[T], path: str) -> T:
    """Raises Impostor when the text is not such an answer. `path` is for the message."""
    try:
        return msgspec.json.decode(text, type=kind)
    except UNREADABLE as wrong:
        raise Impostor(f"it answered {path} with something else") from wrong
