"""How the two halves of the SDK wait, which is all that differs between them. To make the sync half, `generate`
replaces `async_pause` by `pause` and so on.
"""

import asyncio
import inspect
import time
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Annotated, Any, Generic, TypeAlias, TypeVar

T = TypeVar("T")
S = TypeVar("S", bound=AbstractAsyncContextManager[Any])

Eventual: TypeAlias = Awaitable[T]
Plain: TypeAlias = Annotated[T, "at once"]  # what is Eventual in the async half
AsyncPause: TypeAlias = Callable[[float], Coroutine[Any, Any, object]]
Pause: TypeAlias = Callable[[float], object]

async_pause: AsyncPause = asyncio.sleep
pause: Pause = time.sleep


async def async_in_thread(work: Callable[..., T], *arguments: object) -> T:
    """Runs blocking work outside the event loop."""
    return await asyncio.to_thread(work, *arguments)


def in_thread(work: Callable[..., T], *arguments: object) -> T:
    return work(*arguments)


async def async_tell(listener: Callable[[str], object], output: str) -> None:
    """Calls a listener, which may be a coroutine function."""
    heard = listener(output)
    if inspect.isawaitable(heard):
        await heard


def tell(listener: Callable[[str], object], output: str) -> None:
    listener(output)


def async_close_with(owner: object, close: Callable[[], object]) -> None:
    """Does nothing: a loop's connections must be closed inside it, by `async with` or `close`."""


def close_with(owner: object, close: Callable[[], object]) -> None:
    """Closes a client that is never closed explicitly, as in `with Buntime().sessions.create() as session`."""
    weakref.finalize(owner, close)


class AsyncReader(Generic[T]):
    """Reads a generator. One task may close it while another reads; the read then ends as at the generator's end."""

    def __init__(self, events: AsyncGenerator[T]) -> None:
        self._events = events
        self._reading: asyncio.Future[T] | None = None
        self._is_closed = False

    async def read(self) -> T:
        """Returns the next value. Raises StopAsyncIteration at the end."""
        self._reading = asyncio.ensure_future(self._events.__anext__())
        try:
            return await self._reading
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._is_closed or (task is not None and task.cancelling()):
                raise
            raise StopAsyncIteration from None
        finally:
            self._reading = None

    async def close(self) -> None:
        self._is_closed = True
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait([self._reading])
        await self._events.aclose()


class Reader(Generic[T]):
    """The sync version. Here no thread can end another thread's read."""

    def __init__(self, events: Generator[T]) -> None:
        self._events = events

    def read(self) -> T:
        """Returns the next value. Raises StopIteration at the end."""
        return next(self._events)

    def close(self) -> None:
        self._events.close()


class Awaited(Coroutine[Any, Any, S], Generic[S]):
    """A pending result: `await` returns it, `async with` uses it for the block. It can become a task."""

    def __init__(self, coming: Coroutine[Any, Any, S]) -> None:
        self._coming = coming
        self._come: S | None = None

    def __await__(self) -> Generator[Any, Any, S]:
        return self._coming.__await__()

    def send(self, value: Any, /) -> Any:
        return self._coming.send(value)

    def throw(self, *failure: Any) -> Any:
        return self._coming.throw(*failure)

    def close(self) -> None:
        self._coming.close()

    async def __aenter__(self) -> S:
        self._come = await self._coming
        await self._come.__aenter__()
        return self._come

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._come is not None:
            await self._come.__aexit__(kind, failure, trace)


def awaited(coming: Coroutine[Any, Any, S]) -> Awaited[S]:
    return Awaited(coming)


Now: TypeAlias = Annotated[T, "at once"]  # what is Awaited in the async half


def now(value: T) -> T:
    return value
