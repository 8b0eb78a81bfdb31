"""Streamed answers: Server-Sent Events, and bodies of any size.

Only a lack of progress ends such an answer: a client that reads nothing for `STALL_SECONDS` counts as gone. Every
`send` waits for the client, so nothing is produced before the client can take it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import msgspec
from starlette.types import Receive, Send

from buntime.daemon.tasks import within
from buntime.errors import BuntimeError, ExecutionTimeout, MayNotAct, Unavailable
from buntime.inside import Ticket
from buntime.web.exchange import ClientLeft, Exchange, Headers
from buntime.web.failures import reply_to
from buntime.web.handover import Handover
from buntime.web.leaving import disconnected
from buntime.web.wire.shapes import encode_after

HEARTBEAT_SECONDS = 15.0
HEARTBEAT = b": heartbeat\n\n"
STALL_SECONDS = 120.0
TURN = 50  # pieces after which other tasks run: sending does not wait while the buffer has room
EVENTS = b"text/event-stream"
NO_BUFFERING: Headers = [(b"x-accel-buffering", b"no")]  # for proxies in front of the edge


class Out:
    """An answer under way. A failure before `begin` becomes an ordinary error answer."""

    def __init__(self, exchange: Exchange, send: Send) -> None:
        self._exchange = exchange
        self._send = send
        self._turn = asyncio.Lock()  # between events and heartbeats
        self._heartbeats: asyncio.Task[None] | None = None
        self._sent_at = 0.0
        self._pieces = 0
        self.begun = False
        self._is_events = False
        self.silenced: asyncio.Future[None] = (
            asyncio.get_running_loop().create_future()
        )  # a heartbeat was refused: this host may say nothing any more

    async def begin_events(self) -> None:
        """Sends the head of a stream of events. From now on heartbeats fill silence."""
        self._is_events = True
        await self.begin(EVENTS, NO_BUFFERING)
        self._heartbeats = asyncio.create_task(self._beat(), name="heartbeats")

    async def event(self, name: str, content: msgspec.Struct | bytes, cursor: str | None = None) -> None:
        """`content`: a struct, or JSON on one line. `cursor`: where a client that reconnects continues."""
        mark = "" if cursor is None else f"id: {cursor}\n"
        head = f"event: {name}\n{mark}data: ".encode()
        event = bytearray(head) + content if isinstance(content, bytes) else encode_after(head, content)
        event += b"\n\n"
        await self._put(event)

    async def begin(self, media: bytes, headers: Headers, status: int = 200) -> None:
        """Sends the head of an answer. Raises HeadIsAll for a HEAD request."""
        exchange = self._exchange
        exchange.status, self.begun = status, True
        whole = self.head(media, headers)
        await self._send({"type": "http.response.start", "status": status, "headers": whole})
        if exchange.method == "HEAD":
            raise HeadIsAll
        self._sent_at = asyncio.get_running_loop().time()
        if self._is_events:  # otherwise the head would wait for the first event
            await self._put(b":\n\n")

    def head(self, media: bytes, headers: Headers) -> Headers:
        """All headers of the answer."""
        exchange = self._exchange
        whole = [(b"content-type", media), (b"x-request-id", exchange.request_id), *exchange.headers, *headers]
        if not any(name == b"cache-control" for name, _ in whole):
            whole.append((b"cache-control", b"no-store"))
        return whole

    async def hand_over(
        self, handover: Handover, ticket: Ticket, length: int | None, media: bytes, headers: Headers, status: int
    ) -> None:
        """Lets the edge send the answer, whose body it fetches with the ticket. Returns when the client has it. Raises
        ClientLeft, and Unavailable if the client has got nothing yet."""
        await handover.begin(ticket, length, self.head(media, headers), status)
        await handover.fetched()
        self._exchange.status = status

    async def content(self, part: bytes) -> None:
        """Sends part of a body that is not a stream of events."""
        await self._put(part)

    async def end(self, failure: BuntimeError | None = None) -> None:
        """Ends the answer. Events end with the failure as an `error` event; any other body that fails is cut off."""
        if self._heartbeats is not None:
            self._heartbeats.cancel()
        if failure is not None:
            self._exchange.code = failure.code
            if not self._is_events:
                raise ClientLeft from failure  # the connection is cut: the body is incomplete
            body = msgspec.json.decode(reply_to(failure).body)["error"]
            await self.event("error", msgspec.json.encode(body))
        async with self._turn:
            await self._send({"type": "http.response.body", "body": b""})

    def stop(self) -> None:
        if self._heartbeats is not None:
            self._heartbeats.cancel()

    async def _put(self, part: bytes | bytearray) -> None:
        try:
            await within(STALL_SECONDS, self._passed(part), "piece")
        except TimeoutError:
            raise ClientLeft from None
        self._sent_at = asyncio.get_running_loop().time()
        self._pieces += 1
        if self._pieces % TURN == 0:
            await asyncio.sleep(0)

    async def _passed(self, part: bytes | bytearray) -> None:
        async with self._turn:
            await self._send({"type": "http.response.body", "body": part, "more_body": True})

    async def _beat(self) -> None:
        clock = asyncio.get_running_loop().time
        try:
            while True:
                await asyncio.sleep(max(self._sent_at + HEARTBEAT_SECONDS - clock(), 0.01))
                if clock() - self._sent_at >= HEARTBEAT_SECONDS:
                    await self._put(HEARTBEAT)
        except ClientLeft:
            return  # the next sender finds out too
        except MayNotAct:
            self.silenced.set_result(None)


class HeadIsAll(Exception):
    """A HEAD request has its whole answer. Never shown to anyone."""


class OpenStreams:
    """The open answers without an end of their own. A server that stops ends them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self.ending = False

    def end(self) -> None:
        self.ending = True
        for task in self._tasks:
            task.cancel()

    def add(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class Body(Protocol):
    """A request body as it arrives."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...


async def parts_of(receive: Receive) -> AsyncIterator[bytes]:
    """Raises ClientLeft, and ExecutionTimeout if nothing arrives for `STALL_SECONDS`."""
    more = True
    while more:
        try:
            async with asyncio.timeout(STALL_SECONDS):
                message = await receive()
        except TimeoutError:
            raise ExecutionTimeout("The request body stopped arriving.") from None
        if message["type"] == "http.disconnect":
            raise ClientLeft
        more = message.get("more_body", False)
        if part := message.get("body", b""):
            yield part


async def perform(
    out: Out,
    handle: Callable[[], Awaitable[None]],
    receive: Receive | None,
    streams: OpenStreams | None,
) -> None:
    """Sends a whole streamed answer.

    Cancels the handler if the client leaves, if this host may not act any more, which raises MayNotAct, and if the
    server stops: the answer then ends with an error. `receive` is None if the handler reads the body. `streams` is
    given for an answer without an end of its own.
    """
    answer = _Answer(out, handle, streams)
    work = asyncio.create_task(answer.whole(), name="streamed answer")
    if streams is not None:
        streams.add(work)
    watch = None if receive is None else asyncio.create_task(disconnected(receive), name="disconnect watch")
    try:
        ends = {work, out.silenced, *({watch} if watch else ())}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise MayNotAct if out.silenced.done() else ClientLeft
        await work
    except asyncio.CancelledError:
        answer.stopped = True
        work.cancel()
        await asyncio.wait({work})
        await work
    finally:
        out.stop()
        if watch is not None:
            watch.cancel()
        if not work.done():
            work.cancel()
            await asyncio.wait({work})


class _Answer:
    """Runs the handler and ends the answer, however the handler ends."""

    def __init__(self, out: Out, handle: Callable[[], Awaitable[None]], streams: OpenStreams | None) -> None:
        self._out = out
        self._handle = handle
        self._streams = streams
        self.stopped = False

    async def whole(self) -> None:
        try:
            await self._handle()
        except HeadIsAll:
            await self._out.end()
        except BuntimeError as failure:
            if not self._out.begun:
                raise
            await self._out.end(failure)
        except asyncio.CancelledError:
            if not self.stopped and (self._streams is None or not self._streams.ending):
                raise
            stopping = Unavailable("The server is stopping.", 2)
            if not self._out.begun:
                raise stopping from None
            await self._out.end(stopping)
        else:
            await self._out.end()
