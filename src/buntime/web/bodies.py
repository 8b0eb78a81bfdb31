"""Reads request bodies up to the plan's limit, with a bound on all bodies in memory at once."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from starlette.types import Receive

from buntime.errors import BuntimeError, ExecutionTimeout, InvalidRequest, PayloadTooLarge, Unavailable
from buntime.plan import MB, Plan
from buntime.web.exchange import ClientLeft, Exchange

HELD_LIMIT = 512 * MB  # bytes of all bodies in the process
SMALL = 1 * MB  # smaller bodies do not queue: a connection may buffer that much anyway
PATIENCE = 20.0  # seconds that a request waits for memory
SLOWEST = 256 * 1024  # bytes a second: the lowest rate at which a client may send
GRACE = 30.0  # seconds on top of that
LARGEST_UNUSED = 64 * 1024  # bytes of a body that the operation does not take


class BodyMemory:
    """The memory for bodies, given out first come, first served."""

    def __init__(self, limit: int = HELD_LIMIT, patience: float = PATIENCE) -> None:
        self._free = self._limit = limit
        self._patience = patience
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def room(self, size: int) -> AbstractAsyncContextManager[None]:
        """Holds `size` bytes within the block. Raises Unavailable if none are free in time."""
        return nullcontext() if size <= SMALL else self._queued(min(size, self._limit))

    @asynccontextmanager
    async def _queued(self, size: int) -> AsyncIterator[None]:
        await self._take(size)
        try:
            yield
        finally:
            self._free += size
            self._wake()

    async def _take(self, size: int) -> None:
        if not self._waiting and size <= self._free:
            self._free -= size
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            async with asyncio.timeout(self._patience):
                await turn
        except BaseException as ended:
            if turn.done() and not turn.cancelled():
                self._free += size  # the turn came in the same moment
            else:
                self._waiting.remove((size, turn))
            self._wake()
            if isinstance(ended, TimeoutError):
                raise Unavailable("The server is reading too many large requests. Try again shortly.", 5) from None
            raise

    def _wake(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            size, turn = self._waiting.popleft()
            self._free -= size
            turn.set_result(None)


@asynccontextmanager
async def received(exchange: Exchange, receive: Receive, plan: Plan, memory: BodyMemory) -> AsyncIterator[bytes]:
    """The whole body. Its memory is held until the block ends.

    Raises PayloadTooLarge (from Content-Length, before anything is read), ExecutionTimeout if the client sends too
    slowly, Unavailable and ClientLeft.
    """
    limit, declared = plan.body_mb * MB, check_declared(exchange, plan)
    size = limit if declared is None else declared
    async with memory.room(size):
        try:
            async with asyncio.timeout(GRACE + size / SLOWEST):
                body = await _read(receive, limit, lambda: _too_large(plan))
        except TimeoutError:
            raise ExecutionTimeout("The request body arrived too slowly.") from None
        yield body


def check_declared(exchange: Exchange, plan: Plan) -> int | None:
    """Returns `declared_length`. Raises PayloadTooLarge if the plan allows less."""
    declared = declared_length(exchange)
    if declared is not None and declared > plan.body_mb * MB:
        raise _too_large(plan)
    return declared


async def received_unused(exchange: Exchange, receive: Receive) -> bytes:
    """The body of a request that should have none. Raises InvalidRequest if it is large, else as `received` does."""
    declared = declared_length(exchange)
    if declared == 0:
        return b""
    if declared is not None and declared > LARGEST_UNUSED:
        raise _unused()
    try:
        async with asyncio.timeout(GRACE):
            return await _read(receive, LARGEST_UNUSED, _unused)
    except TimeoutError:
        raise ExecutionTimeout("The request body arrived too slowly.") from None


def declared_length(exchange: Exchange) -> int | None:
    """None for a chunked body, 0 for no body."""
    lengths = exchange.header(b"content-length")
    if not lengths:
        return None if exchange.header(b"transfer-encoding") else 0
    try:
        return int(lengths[0])
    except ValueError:
        raise InvalidRequest("Content-Length", "Content-Length must be a whole number.") from None


async def _read(receive: Receive, limit: int, too_large: Callable[[], BuntimeError]) -> bytes:
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise too_large()
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _unused() -> InvalidRequest:
    return InvalidRequest("body", "This request takes no body.")


def _too_large(plan: Plan) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"A request body may have at most {plan.body_mb} MB on the {plan.name} plan.",
        plan=plan.name,
        limit=plan.body_mb * MB,
    )


def require_json(exchange: Exchange) -> None:
    """Raises InvalidRequest unless the body is declared as application/json in UTF-8."""
    values = exchange.header(b"content-type")
    media, *parameters = (values[0] if len(values) == 1 else b"").decode("latin-1").split(";")
    if media.strip().lower() != "application/json":
        raise InvalidRequest("Content-Type", "Send the body with Content-Type: application/json.")
    for parameter in parameters:
        name, _, value = parameter.strip().partition("=")
        if name.lower() == "charset" and value.strip('"').lower() not in ("utf-8", "utf8", "us-ascii"):
            raise InvalidRequest("Content-Type", "JSON must be UTF-8. Send no other charset.")
