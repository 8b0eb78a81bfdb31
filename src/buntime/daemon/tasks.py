"""Work that outlives the request that began it. Every task has this one owner and a name."""

import asyncio
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from contextvars import Context
from types import TracebackType
from typing import Any, Self

import structlog

log = structlog.get_logger()


class Tasks:
    """A task group in which one failed piece of work does not end the others.

    Leaving the block cancels what `start_daemon` and `listen` started, and waits for everything.
    """

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._daemons: set[asyncio.Task[None]] = set()
        self._cut: set[asyncio.Task[None]] = set()  # what `cut` ends
        self._is_left = False

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_left = True
        for task in self._daemons:
            task.cancel()
        if self._daemons:  # first: what they undo is work of this group, which takes no work once it fails
            await asyncio.wait(self._daemons)
        try:
            await self._group.__aexit__(kind, failure, trace)
        except BaseExceptionGroup as failures:
            if len(failures.exceptions) == 1:  # the failure of the block or of a daemon, unwrapped
                raise failures.exceptions[0] from failures.exceptions[0].__cause__
            raise

    @property
    def is_left(self) -> bool:
        """Whether the block is being left. Then nothing may wait for what may never come."""
        return self._is_left

    def start(self, work: Coroutine[Any, Any, object], name: str) -> None:
        """Starts work that nobody waits for. A failure is logged, and the keeper finishes what was left undone."""
        self._group.create_task(_logged(work, name), name=name)

    def listen(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Starts work that waits for what may never come. It inherits nothing of the request that began it. A failure
        is logged."""
        if self._is_left:
            work.close()
            return
        task = self._group.create_task(_logged(work, name), name=name, context=Context())
        self._daemons.add(task)
        task.add_done_callback(self._daemons.discard)
        task.add_done_callback(lambda _: work.close())  # if it was cancelled before it began

    def start_daemon(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Starts a loop that the server cannot run without: its failure ends the group."""
        task = self._group.create_task(work, name=name)
        self._daemons.add(task)

    async def finish[T](self, work: Coroutine[Any, Any, T], name: str, *, until_cut: bool = False) -> T:
        """Awaits work that goes on to its end when the caller is cancelled. Raises what the work raises.

        `until_cut`: `cut` ends the work before its end.
        """
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        task = self._group.create_task(_settle(work, outcome), name=name)
        if until_cut:
            self._cut.add(task)
            task.add_done_callback(self._cut.discard)
        try:
            return await asyncio.shield(outcome)
        finally:
            del outcome  # a failure in it refers to this frame; without the cycle it is freed with its last user

    async def cut(self) -> None:
        """Cancels work that `finish` took with `until_cut`, and waits until it has ended."""
        for task in self._cut:
            task.cancel()
        if self._cut:
            await asyncio.wait(self._cut)


async def _logged(work: Awaitable[object], name: str) -> None:
    try:
        await work
    except Exception:  # the boundary of a task: nobody awaits it
        log.exception("task_failed", task=name)


async def _settle[T](work: Awaitable[T], outcome: asyncio.Future[T]) -> None:
    try:
        result = await work
    except Exception as failed:  # noqa: BLE001 - raised at the caller
        outcome.set_exception(failed)
        outcome.exception()  # marks it as retrieved, even if the caller has left
    except BaseException:
        outcome.cancel()
        raise
    else:
        outcome.set_result(result)
    finally:
        del outcome


async def to_its_end[T](work: Awaitable[T]) -> T:
    """Awaits work that cannot be cut off, such as a thread's. A cancellation is raised once the work has ended."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # so that asyncio does not report it as never retrieved
        raise


async def cancel_and_wait(task: asyncio.Task[Any]) -> None:
    """Cancels the task and waits until it has ended, in whatever way."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # so that asyncio does not report it as never retrieved


def begun[T](work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
    """Runs the work at once until it waits for the first time. Most short work never waits, and is done then."""
    return asyncio.Task(work, loop=asyncio.get_running_loop(), name=name, eager_start=True)


async def ends_within(seconds: float, task: asyncio.Future[Any]) -> bool:
    """Waits until the task has ended, in whatever way, but no longer than `seconds`. Returns whether it has. Like
    `asyncio.wait` for one, in half the time."""
    if task.done():
        return True
    loop = asyncio.get_running_loop()
    waits: asyncio.Future[None] = loop.create_future()

    def wake(_: object = None) -> None:
        if not waits.done():
            waits.set_result(None)

    timer = loop.call_later(seconds, wake)
    task.add_done_callback(wake)
    try:
        await waits
    finally:
        timer.cancel()
        task.remove_done_callback(wake)
    return task.done()


async def within[T](seconds: float, work: Coroutine[Any, Any, T], name: str) -> T:
    """Awaits the work. Raises TimeoutError if it waits for longer. Work that never waits costs no timer."""
    task = begun(work, name)
    if task.done():
        return task.result()
    async with asyncio.timeout(seconds):
        return await task
