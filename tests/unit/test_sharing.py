"""One run of work serves every caller that asked before it began."""

import asyncio
import threading

import pytest

from buntime.sandboxes.sharing import Shared


class Work:
    """Blocking work that ends when the test permits it."""

    def __init__(self) -> None:
        self.begun = 0
        self.let = threading.Semaphore(0)

    def __call__(self) -> None:
        self.begun += 1
        assert self.let.acquire(timeout=30)


async def _until_begun(work: Work, count: int) -> None:
    async with asyncio.timeout(30):
        while work.begun < count:  # noqa: ASYNC110 - a thread changes it
            await asyncio.sleep(0.001)


async def test_callers_during_a_run_share_the_next_one() -> None:
    shared, work = Shared(), Work()
    first = asyncio.ensure_future(shared.done(work))
    await _until_begun(work, 1)
    late = [asyncio.ensure_future(shared.done(work)) for _ in range(4)]
    work.let.release()
    await first
    await _until_begun(work, 2)
    assert not any(one.done() for one in late), "a run that began earlier must not serve them"
    work.let.release()
    await asyncio.gather(*late)
    assert work.begun == 2


async def test_callers_at_the_same_time_share_the_first_run() -> None:
    shared, work = Shared(), Work()
    work.let.release()
    await asyncio.gather(*(shared.done(work) for _ in range(4)))
    assert work.begun == 1


async def test_a_failure_reaches_every_caller_and_the_next_run_is_new() -> None:
    shared = Shared()

    def fail() -> None:
        raise OSError("no disk")

    outcomes = await asyncio.gather(shared.done(fail), shared.done(fail), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [OSError, OSError]
    work = Work()
    work.let.release()
    await shared.done(work)
    assert work.begun == 1


async def test_a_cancelled_caller_leaves_the_run_to_the_others() -> None:
    shared, work = Shared(), Work()
    one, other = (asyncio.ensure_future(shared.done(work)) for _ in range(2))
    await _until_begun(work, 1)
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    work.let.release()
    await other
