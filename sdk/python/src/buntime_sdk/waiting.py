"""What differs between the two halves of the SDK: how they wait. The sync half is made of the async one by `generate`,
which takes `pause` for `async_pause` and so on.
"""

import asyncio
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

type Eventual[T] = Awaitable[T]
type Plain[T] = T
type AsyncPause = Callable[[float], Coroutine[Any, Any, object]]
type Pause = Callable[[float], object]

async_pause: AsyncPause = asyncio.sleep
pause: Pause = time.sleep


async def async_in_thread[T](work: Callable[..., T], *arguments: object) -> T:
    """For what would hold up the loop."""
    return await asyncio.to_thread(work, *arguments)


def in_thread[T](work: Callable[..., T], *arguments: object) -> T:
    return work(*arguments)


def async_close_with(owner: object, close: Callable[[], object]) -> None:
    """Nothing: connections of a loop are closed in it, by `async with` or `close`."""


def close_with(owner: object, close: Callable[[], object]) -> None:
    """For a client that nobody closes, as in `with Buntime().sessions.create() as session`."""
    weakref.finalize(owner, close)


class Awaited[S: AbstractAsyncContextManager[Any]]:
    """Something on its way: `await` gives it, and `async with` gives it for the block."""

    def __init__(self, coming: Coroutine[Any, Any, S]) -> None:
        self._coming = coming
        self._come: S | None = None

    def __await__(self) -> Generator[Any, Any, S]:
        return self._coming.__await__()

    async def __aenter__(self) -> S:
        self._come = await self._coming
        await self._come.__aenter__()
        return self._come

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._come is not None:
            await self._come.__aexit__(kind, failure, trace)


def awaited[S: AbstractAsyncContextManager[Any]](coming: Coroutine[Any, Any, S]) -> Awaited[S]:
    return Awaited(coming)


type Now[S] = S  # what is Awaited in the async half


def now[S](value: S) -> S:
    return value
