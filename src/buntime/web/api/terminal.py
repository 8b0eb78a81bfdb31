"""A terminal as a WebSocket.

Every call needs the API key. Before the upgrade a failure is an ordinary HTTP answer; after it, a text frame and a
close code. No browser sends the key on its own, so pages of other sites cannot use it and the Origin header is not
checked. Bytes from the client count as activity; the connection itself and the server's pings do not.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec
from starlette.types import Message, Receive, Send
from starlette.types import Scope as AsgiScope

from buntime import errors
from buntime.caller import Caller
from buntime.cause import caused_by
from buntime.daemon.room import belongs_to
from buntime.daemon.tasks import begun, within
from buntime.errors import BuntimeError, ExecutionTimeout, InvalidRequest, Unavailable
from buntime.inside import Exit
from buntime.operations.terminals import Opened, OpenTerminal, Terminals
from buntime.ports import SandboxGone
from buntime.scope import Scope
from buntime.web.api.ids import session_id, terminal_id
from buntime.web.auth import cause_of
from buntime.web.decoding import decode_body, decode_query
from buntime.web.exchange import ClientLeft, Exchange
from buntime.web.failures import reply_to
from buntime.web.operation import SESSION_SECONDS, Call, operation
from buntime.web.resource import World
from buntime.web.silence import only_if, tells_only_if
from buntime.web.streaming import OpenStreams
from buntime.web.websocket import left
from buntime.web.wire.errors import FailureAnswer
from buntime.web.wire.shapes import encode
from buntime.web.wire.terminal import Detached, Exited, Failed, Ready, Resize, TerminalQuery

PATH = "/sessions/{sessionId}/terminal"
OPENING_SECONDS = SESSION_SECONDS
STALL_SECONDS = 120.0  # how long a client may read nothing while output waits
ACTIVITY_SECONDS = 1.0  # between two notes of activity
LAST_WORDS_SECONDS = 2.0  # to write what a client typed before it left
PIECE = 64 << 10  # bytes in one frame to the client
ENDED, WRONG, BROKEN, RESTARTING = 1000, 1008, 1011, 1012  # close codes


class TerminalSocket:
    """An ASGI application for WebSockets on PATH."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["exchange"]
        exchange.route = PATH
        exchange.note_session(exchange.path_params.get("sessionId"))
        stands = self._world.operations.owners.standing()
        caller = await self._world.authenticator.caller_of(exchange)
        belongs_to(caller.account.id)
        caller.require(terminal.scope)
        with caused_by(cause_of(exchange, caller)), tells_only_if(stands):
            await self._serve(exchange, caller, receive, only_if(stands, send))

    async def _serve(self, exchange: Exchange, caller: Caller, receive: Receive, send: Send) -> None:
        query, _ = decode_query(TerminalQuery, exchange.scope["query_string"], filters=False)
        terminals = self._world.operations.terminals
        named = await self._world.operations.names.id_of(caller.account.id, exchange.path_params["sessionId"])
        exchange.note_session(named)
        async with _opened(terminals, caller, _asked(named, query)) as opened:
            await receive()  # websocket.connect
            exchange.status = 101
            client = Client(exchange, receive, send)
            ready = Ready(terminal_id=opened.id, cols=opened.cols, rows=opened.rows, resumed=opened.resumed)
            try:
                await client.accept()
                await client.tell(ready)
            except ClientLeft:
                if not opened.resumed:
                    await terminals.forget(caller, opened)
                return
            with suppress(ClientLeft):
                await Conversation(terminals, caller, opened, client).hold(self._world.streams)


@asynccontextmanager
async def _opened(terminals: Terminals, caller: Caller, asked: OpenTerminal) -> AsyncIterator[Opened]:
    """Raises ExecutionTimeout if opening takes too long."""
    opening = terminals.open(caller, asked)
    try:
        async with asyncio.timeout(OPENING_SECONDS):
            opened = await opening.__aenter__()
    except TimeoutError:
        raise ExecutionTimeout(f"The request took longer than {OPENING_SECONDS:g} seconds.") from None
    try:
        yield opened
    finally:
        await opening.__aexit__(None, None, None)


def _asked(wanted: str, query: TerminalQuery) -> OpenTerminal:
    if (query.cols is None) != (query.rows is None):
        raise InvalidRequest("rows" if query.rows is None else "cols", "Give cols and rows together.")
    resumed = None if query.terminal_id is None else terminal_id(query.terminal_id)
    return OpenTerminal(session_id(wanted), resumed, query.cols, query.rows, query.working_dir)


class Client:
    """The client, after the upgrade to a WebSocket. Every method raises ClientLeft."""

    def __init__(self, exchange: Exchange, receive: Receive, send: Send) -> None:
        self._exchange = exchange
        self._receive = receive
        self._send = send

    async def accept(self) -> None:
        headers = [(b"x-request-id", self._exchange.request_id), *self._exchange.headers]
        await self._put({"type": "websocket.accept", "headers": headers})

    async def tell(self, frame: msgspec.Struct) -> None:
        await self._put({"type": "websocket.send", "text": encode(frame).decode()})

    async def show(self, content: bytes) -> None:
        for start in range(0, len(content), PIECE):
            await self._put({"type": "websocket.send", "bytes": content[start : start + PIECE]})

    async def says(self) -> bytes | Resize:
        """Raises InvalidRequest for a text frame that is not a valid resize."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            raise ClientLeft
        content = message.get("bytes")
        if content is not None:
            return bytes(content)
        resize: Resize = decode_body(Resize, message["text"].encode())
        return resize

    async def leaves(self) -> None:
        """Waits until the client has left, even if it sent data that is still unread."""
        await left(self._exchange.scope).wait()
        raise ClientLeft

    async def end(self, how: Exit | None) -> None:
        """`how` is None if another client took over."""
        await self.tell(Detached() if how is None else Exited(exit_code=how.code, reason=how.reason))
        await self._put({"type": "websocket.close", "code": ENDED})

    async def fail(self, failure: BuntimeError, code: int) -> None:
        self._exchange.code = failure.code
        shown = msgspec.json.decode(reply_to(failure).body, type=FailureAnswer)
        await self.tell(Failed(error=shown.error))
        await self._put({"type": "websocket.close", "code": code})

    async def _sent(self, message: Message) -> None:
        await self._send(message)

    async def _put(self, message: Message) -> None:
        try:
            await within(STALL_SECONDS, self._sent(message), "message")
        except OSError:  # TimeoutError is an OSError, and so is what uvicorn raises for a client that left
            raise ClientLeft from None


class Conversation:
    """Passes data both ways until one side ends the terminal."""

    def __init__(self, terminals: Terminals, caller: Caller, opened: Opened, client: Client) -> None:
        self._terminals = terminals
        self._caller = caller
        self._opened = opened
        self._attachment = opened.attachment
        self._client = client
        self._said = asyncio.Event()
        self._unwritten: asyncio.Queue[asyncio.Task[None]] = asyncio.Queue()  # of at most one item
        self._writing: asyncio.Task[None] | None = None
        self._exit: Exit | None = None

    async def hold(self, streams: OpenStreams) -> None:
        work = asyncio.create_task(self._both_ways(), name="terminal of a client")
        streams.add(work)
        try:
            await work
            await self._client.end(self._exit)
        except InvalidRequest as wrong:
            await self._client.fail(wrong, WRONG)
        except BuntimeError as failure:
            await self._client.fail(failure, BROKEN)
        except asyncio.CancelledError:
            if not streams.ending:
                raise
            await self._client.fail(Unavailable("The server is stopping. The terminal keeps running.", 2), RESTARTING)
        finally:
            work.cancel()

    async def _both_ways(self) -> None:
        ways = (self._listen(), self._client.leaves(), self._show(), self._write(), self._keep_awake())
        tasks = [asyncio.create_task(way, name="terminal") for way in ways]
        listening = tasks[0]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if listening in done or any(isinstance(task.exception(), ClientLeft) for task in done):
                await self._last_words(listening)
            for task in done:
                await task
        except SandboxGone:
            self._exit = await self._terminals.why_gone(self._caller, self._opened)
        finally:
            tasks += [self._writing] if self._writing is not None else []
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _last_words(self, listening: asyncio.Task[None]) -> None:
        """Reads and writes what the client typed before it left."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await asyncio.wait({listening})
                await self._unwritten.join()

    async def _show(self) -> None:
        async for part in self._attachment.output():
            if isinstance(part, Exit):
                self._exit = part
                return
            await self._client.show(part)

    async def _listen(self) -> None:
        """Reads one message ahead while the previous one is written."""
        while True:
            said = await self._client.says()
            self._said.set()
            await self._unwritten.join()
            self._writing = begun(self._pass_on(said), "input of a client")
            if self._writing.done():  # as nearly always
                self._writing.result()
            else:
                self._unwritten.put_nowait(self._writing)

    async def _pass_on(self, said: bytes | Resize) -> None:
        if isinstance(said, Resize):
            await self._attachment.resize(said.cols, said.rows)
        else:
            await self._attachment.write(said)

    async def _write(self) -> None:
        while True:
            await (await self._unwritten.get())
            self._unwritten.task_done()

    async def _keep_awake(self) -> None:
        """Notes activity beside the writing, so that typed input does not wait for the wake."""
        while True:
            await self._said.wait()
            self._said.clear()
            try:
                await self._terminals.typed(self._opened)
            except Unavailable:  # the session is still waking, or has no capacity yet
                self._said.set()
            await asyncio.sleep(ACTIVITY_SECONDS)


@operation(
    "GET",
    PATH,
    Scope.SESSIONS_WRITE,
    tag="Execution",
    query=TerminalQuery,
    errors=(
        errors.SessionNotFound,
        errors.TerminalNotFound,
        errors.FileNotFound,
        errors.FileConflict,
        errors.InvalidState,
        errors.ResourceLimitExceeded,
    ),
    done="The connection is a WebSocket from now on.",
    succeeds=101,
)
async def terminal(call: Call[TerminalQuery, None]) -> None:
    """Open a terminal.

    The response is a WebSocket. Binary frames carry the bytes of a pseudo-terminal that runs `bash`, in both
    directions. Text frames are JSON. The server first sends `ready`; at the end it sends `exit`, `detached` if another
    client attached, or `error`. The client can send `{"type": "resize", "cols": 120, "rows": 40}`. A terminal keeps
    running if the connection is lost: reconnect with its `terminalId`, and the server replays the latest output.
    """
    raise InvalidRequest("Upgrade", "This path accepts only WebSockets.")


OPERATIONS = (terminal,)
