import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import suppress
from contextvars import ContextVar

import pytest

from buntime.daemon.tasks import Tasks, begun, ends_within, to_its_end, within
from tests.waiting import eventually


class Boom(Exception):
    pass


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def test_work_goes_on_when_its_caller_is_cancelled() -> None:
    going, done = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await going.wait()
        done.set()

    async with Tasks() as tasks:
        caller = asyncio.create_task(tasks.finish(work(), "work"))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        going.set()
    assert done.is_set()


async def test_cut_ends_only_the_work_that_allows_it() -> None:
    begun: list[str] = []
    ended: list[str] = []

    async def work(name: str, going: asyncio.Event) -> None:
        begun.append(name)
        try:
            await going.wait()
        except asyncio.CancelledError:
            ended.append(name)
            raise

    async with Tasks() as tasks:
        going = asyncio.Event()
        cut = asyncio.create_task(tasks.finish(work("cut", going), "cut", until_cut=True))
        whole = asyncio.create_task(tasks.finish(work("whole", going), "whole"))
        await eventually(lambda: len(begun) == 2, "both to begin")
        await tasks.cut()
        assert ended == ["cut"]
        going.set()
        await whole
        with pytest.raises(asyncio.CancelledError):
            await cut


async def test_a_failure_is_the_callers_alone() -> None:
    async def fail() -> None:
        raise Boom

    async with Tasks() as tasks:
        with pytest.raises(Boom):
            await tasks.finish(fail(), "fail")
        tasks.start(fail(), "nobody waits for it")
        await asyncio.sleep(0)


async def test_a_daemon_that_fails_ends_the_group_with_its_own_failure() -> None:
    async def fail() -> None:
        raise Boom

    async def serve() -> None:
        async with Tasks() as tasks:
            tasks.start_daemon(fail(), "daemon")
            await asyncio.Event().wait()

    with pytest.raises(Boom):
        await serve()


async def test_daemons_end_with_the_block() -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    async with Tasks() as tasks:
        tasks.start_daemon(forever(), "daemon")


@pytest.mark.usefixtures("no_collector")
async def test_a_failure_is_freed_with_its_last_user() -> None:
    held: list[weakref.ref[BaseException]] = []

    async def fail() -> None:
        failure = Boom()
        held.append(weakref.ref(failure))
        try:
            raise failure
        finally:
            del failure

    async def use(tasks: Tasks) -> None:
        with suppress(Boom):
            await tasks.finish(fail(), "fail")

    async with Tasks() as tasks:
        await use(tasks)
        await asyncio.sleep(0)
        assert held[0]() is None


async def test_work_that_cannot_be_cut_off_has_ended_when_its_caller_is_cancelled() -> None:
    begun, ended = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def work() -> None:
        loop.call_soon_threadsafe(begun.set)
        time.sleep(0.2)
        ended.set()

    caller = asyncio.create_task(to_its_end(asyncio.to_thread(work)))
    await begun.wait()
    caller.cancel()
    await asyncio.sleep(0.01)
    caller.cancel()  # again, while it waits
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended.is_set()


async def test_what_the_work_gives_and_raises_is_the_callers() -> None:
    assert await to_its_end(asyncio.sleep(0, "given")) == "given"
    with pytest.raises(Boom):
        await to_its_end(_raise())


async def _raise() -> None:
    raise Boom


async def test_begun_work_runs_at_once_until_it_waits() -> None:
    said: list[str] = []
    go_on = asyncio.Event()

    async def work() -> int:
        said.append("begun")
        await go_on.wait()
        said.append("done")
        return 7

    task = begun(work(), "work")
    assert said == ["begun"]
    assert not task.done()
    go_on.set()
    assert await task == 7


async def test_work_within_its_time_returns_or_raises() -> None:
    async def work(seconds: float, fails: bool) -> int:
        if seconds:
            await asyncio.sleep(seconds)
        if fails:
            raise Boom
        return 7

    for seconds in (0.0, 0.001):
        assert await within(5, work(seconds, False), "work") == 7
        with pytest.raises(Boom):
            await within(5, work(seconds, True), "work")


async def test_work_that_waits_for_too_long_is_cancelled() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    with pytest.raises(TimeoutError):
        await within(0.01, work(), "work")
    caller = asyncio.create_task(within(5, work(), "work"))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended == ["cancelled", "cancelled"]


async def test_leaving_ends_what_listens_also_what_has_not_begun() -> None:
    ended: list[str] = []

    async def listen(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async def late() -> None:
        await asyncio.sleep(0.01)
        tasks.listen(listen("late"), "late")

    async with asyncio.timeout(10), Tasks() as tasks:
        tasks.listen(listen("one"), "one")
        await asyncio.sleep(0)
        tasks.listen(listen("two"), "two")
        tasks.start(late(), "late")
    assert ended == ["one"]


async def test_what_listens_inherits_nothing_and_fails_alone() -> None:
    seen: list[str] = []
    variable: ContextVar[str] = ContextVar("variable", default="nothing")

    async def listen() -> None:
        seen.append(variable.get())
        raise Boom

    variable.set("a request")
    async with Tasks() as tasks:
        tasks.listen(listen(), "one")
        await eventually(lambda: bool(seen), "it to begin")
    assert seen == ["nothing"]


@pytest.mark.parametrize("failure", [None, Boom()])
async def test_what_ends_in_time_has_ended_in_whatever_way(failure: Boom | None) -> None:
    async def work() -> None:
        await asyncio.sleep(0.01)
        if failure is not None:
            raise failure

    task = asyncio.create_task(work())
    assert await ends_within(60, task)
    assert task.exception() is failure
    assert await ends_within(60, task)


async def test_a_cancelled_task_has_ended_too() -> None:
    task = asyncio.create_task(asyncio.sleep(60))
    asyncio.get_running_loop().call_soon(task.cancel)
    assert await ends_within(60, task)
    assert task.cancelled()


async def test_what_takes_longer_goes_on() -> None:
    done = asyncio.Event()
    task = asyncio.create_task(done.wait())
    assert not await ends_within(0.01, task)
    done.set()
    assert await task


async def test_who_stops_waiting_for_an_end_leaves_the_task_alone() -> None:
    done = asyncio.Event()
    task = asyncio.create_task(done.wait())
    waiter = asyncio.create_task(ends_within(60, task))
    await asyncio.sleep(0)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    done.set()
    assert await task
