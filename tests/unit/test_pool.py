"""Which parked sandboxes are ready for their first run: those that are claimed next."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from buntime.daemon.tasks import Tasks, cancel_and_wait
from buntime.errors import SessionBusy, Unavailable
from buntime.ports import SandboxGone
from buntime.sandboxes.machinery import LONGEST_RUSH, RUSH_SECONDS, Rush
from buntime.sandboxes.pool import COUNTED, Pool
from tests.waiting import eventually


class Parked:
    """A fake parked sandbox with the parts that the pool uses."""

    def __init__(self, number: int) -> None:
        self.id = f"sb{number}"
        self.has_counted_spare = False
        self.is_prepared = False
        self.has_died = self.is_killed = False

    def is_alive(self) -> bool:
        return not self.has_died

    async def count_spare(self) -> None:
        self.has_counted_spare = True

    async def park(self) -> None: ...

    async def keep_spare(self) -> None: ...

    async def kill(self) -> None:
        self.is_killed = True

    async def prepare(self) -> None:
        self.is_prepared = self.id != FAILS


FAILS = "sb-fails"


async def _nothing(*_: object) -> Any:
    raise AssertionError("nothing is started or destroyed here")


def _pool(
    size: int,
    tasks: Tasks,
    prepared: int = 0,
    start: Callable[[], Awaitable[Any]] = _nothing,
    destroy: Callable[[str], Coroutine[Any, Any, None]] = _nothing,
) -> Pool:
    """A pool of a host that has room and is not busy."""
    return Pool(
        *(size, prepared, tasks, Rush()),
        require_room=lambda: None,
        start=start,
        destroy=destroy,
        is_busy=lambda: False,
    )


@pytest.mark.parametrize("claims", [0, 1, 3])
async def test_only_the_next_sandboxes_of_the_pool_have_one(claims: int) -> None:
    boxes = [Parked(number) for number in range(COUNTED + 6)]
    async with Tasks() as tasks:
        pool = _pool(len(boxes), tasks)
        for box in boxes:
            pool.add(cast("Any", box))
        for _ in range(claims):
            assert pool.take_parked() is not None
    assert [box.has_counted_spare for box in boxes] == [number < COUNTED + claims for number in range(len(boxes))]


async def test_a_burst_of_claims_has_one_for_each() -> None:
    claims = COUNTED + 3
    boxes = [Parked(number) for number in range(claims)]
    async with Tasks() as tasks:
        pool = _pool(claims, tasks)
        for box in boxes:
            pool.add(cast("Any", box))
        for _ in boxes:
            pool.take_parked()
    assert all(box.has_counted_spare for box in boxes)


async def test_one_that_has_died_is_not_handed_out_and_its_files_are_closed() -> None:
    boxes, destroyed = [Parked(0), Parked(1)], list[str]()
    boxes[0].has_died = True

    async def destroy(sandbox: str) -> None:
        assert boxes[0].is_killed, "its files are still open"
        destroyed.append(sandbox)

    async with Tasks() as tasks:
        pool = _pool(2, tasks, destroy=destroy)
        for box in boxes:
            pool.add(cast("Any", box))
        taken = pool.take_parked()
        assert taken is not None
        assert taken.id == "sb1"
        await eventually(lambda: destroyed == ["sb0"])


# --- rushes ---


async def test_a_rush_is_over_when_no_claim_comes_for_a_moment_and_lasts_a_second_at_most() -> None:
    loop, rush = asyncio.get_running_loop(), Rush()
    began = loop.time()
    await rush.over()
    assert loop.time() - began < RUSH_SECONDS, "there was no claim"
    rush.note_claim()
    await rush.over()
    assert rush.seconds_since() >= RUSH_SECONDS
    began, waiting = loop.time(), asyncio.create_task(rush.over())
    while not waiting.done():
        rush.note_claim()
        await asyncio.sleep(RUSH_SECONDS / 5)
    assert loop.time() - began >= LONGEST_RUSH


# --- claims that find none ---


class Starts:
    """Starts of sandboxes, each of which ends when the test says so."""

    def __init__(self) -> None:
        self.under_way: list[asyncio.Future[Any]] = []
        self.destroyed: list[str] = []

    async def start(self) -> Any:
        outcome = asyncio.get_running_loop().create_future()
        self.under_way.append(outcome)
        return await asyncio.shield(outcome)

    async def destroy(self, sandbox: str) -> None:
        self.destroyed.append(sandbox)


@asynccontextmanager
async def _empty(starts: Starts, size: int = 2) -> AsyncIterator[Pool]:
    async with Tasks() as tasks:
        yield _pool(size, tasks, start=starts.start, destroy=starts.destroy)


async def _claim(pool: Pool, starts: Starts) -> asyncio.Task[Any]:
    """One whose start is under way."""
    count = len(starts.under_way)
    claim = asyncio.create_task(pool.take())
    await eventually(lambda: len(starts.under_way) > count)
    return claim


async def _comes_late(box: Parked, pool: Pool, starts: Starts) -> None:
    """The sandbox starts for a claim that has left."""
    await cancel_and_wait(await _claim(pool, starts))
    starts.under_way[0].set_result(box)


async def _is_given_back(box: Parked, pool: Pool, starts: Starts) -> None:
    await _comes_late(box, pool, starts)
    await eventually(lambda: starts.destroyed == ["sb1"])
    assert box.is_killed
    assert len(pool) == 0


async def test_a_claim_gets_the_sandbox_that_is_started_for_it() -> None:
    starts, box = Starts(), cast("Any", Parked(1))
    async with _empty(starts) as pool:
        claim = await _claim(pool, starts)
        starts.under_way[0].set_result(box)
        assert await claim is box
        assert len(pool) == 0


async def test_a_claim_that_waits_too_long_is_told_when_to_come_again_and_the_next_one_has_its_sandbox(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("buntime.sandboxes.pool.LONGEST_WAIT", 0.01)
    starts, box = Starts(), cast("Any", Parked(1))
    async with _empty(starts) as pool:
        with pytest.raises(Unavailable) as refused:
            await pool.take()
        assert int(str(refused.value.details["retryAfter"])) >= 1
        starts.under_way[0].set_result(box)
        await eventually(lambda: len(pool) == 1)
        assert await pool.take() is box
    assert not starts.destroyed


async def test_the_sandbox_of_a_claim_that_left_is_for_the_next_one() -> None:
    starts, box = Starts(), cast("Any", Parked(1))
    async with _empty(starts) as pool:
        await _comes_late(box, pool, starts)
        await eventually(lambda: len(pool) == 1)
        assert pool.take_parked() is box


@pytest.mark.parametrize("turns", range(6))
async def test_a_claim_that_leaves_as_its_sandbox_comes_does_not_lose_it(turns: int) -> None:
    starts = Starts()
    async with _empty(starts) as pool:
        claim = await _claim(pool, starts)
        starts.under_way[0].set_result(Parked(1))
        for _ in range(turns):
            await asyncio.sleep(0)
        await cancel_and_wait(claim)
        await eventually(lambda: pool.ids == set() if not claim.cancelled() else pool.ids == {"sb1"})


@pytest.mark.parametrize("is_closed", [False, True])
async def test_a_late_sandbox_that_has_no_place_is_destroyed(is_closed: bool) -> None:
    starts, box = Starts(), Parked(1)
    async with _empty(starts, size=1) as pool:
        claim = await _claim(pool, starts)
        await cancel_and_wait(claim)
        if is_closed:
            pool.empty()
        else:
            pool.add(cast("Any", Parked(2)))
        starts.under_way[0].set_result(box)
        await eventually(lambda: starts.destroyed == ["sb1"])
        assert box.is_killed
        assert pool.ids == (set() if is_closed else {"sb2"})


async def test_a_sandbox_that_is_parked_while_the_pool_is_emptied_is_destroyed() -> None:
    class Slow(Parked):
        async def park(self) -> None:
            pool.empty()

    starts, box = Starts(), Slow(1)
    async with _empty(starts) as pool:
        await _is_given_back(box, pool, starts)


@pytest.mark.parametrize("failure", [SandboxGone("it ended"), SessionBusy("no process"), OSError("no file")])
async def test_a_late_sandbox_that_cannot_be_parked_is_destroyed(failure: Exception) -> None:
    class Failing(Parked):
        async def park(self) -> None:
            raise failure

    starts, box = Starts(), Failing(1)
    async with _empty(starts) as pool:
        await _is_given_back(box, pool, starts)


async def test_a_claim_is_told_that_its_start_failed() -> None:
    starts = Starts()
    async with _empty(starts) as pool:
        claim = await _claim(pool, starts)
        starts.under_way[0].set_exception(Unavailable("no", 5))
        with pytest.raises(Unavailable, match="no"):
            await claim
        claim = await _claim(pool, starts)
        await cancel_and_wait(claim)
        starts.under_way[1].set_exception(Unavailable("no", 5))
        assert len(pool) == 0


# --- those with a started Bun ---


@asynccontextmanager
async def _kept(size: int, prepared: int, names: Iterable[str] = ()) -> AsyncIterator[Pool]:
    """A pool that keeps itself full. `names`: the ids of the first sandboxes."""
    ids, numbers = iter(names), itertools.count()

    async def start() -> Any:
        box = Parked(next(numbers))
        box.id = next(ids, box.id)
        return box

    async with Tasks() as tasks:
        pool = _pool(size, tasks, prepared=prepared, start=start)
        keeping = asyncio.create_task(pool.keep())
        yield pool
        await cancel_and_wait(keeping)


def _prepared(pool: Pool) -> list[bool]:
    return [box.is_prepared for box in pool]


async def test_those_that_are_claimed_next_are_prepared() -> None:
    async with _kept(5, 2) as pool:
        await eventually(lambda: _prepared(pool) == [True, True, False, False, False])
        claimed = pool.take_parked()
        assert claimed is not None
        assert claimed.is_prepared
        await eventually(lambda: _prepared(pool) == [True, True, False, False, False])


async def test_a_claim_for_another_root_takes_one_that_is_not_prepared() -> None:
    async with _kept(3, 2) as pool:
        await eventually(lambda: _prepared(pool) == [True, True, False])
        assert [box.is_prepared for _ in range(3) if (box := pool.take_parked(bare=True))] == [False, True, True]


async def test_one_that_cannot_be_prepared_is_parked_all_the_same() -> None:
    async with _kept(3, 3, ["sb-a", FAILS]) as pool:
        await eventually(lambda: _prepared(pool) == [True, False, True])


async def test_none_is_prepared_while_claims_come_in() -> None:
    async with _kept(40, 40) as pool:
        await eventually(lambda: len(pool) == 40)
        for _ in range(20):
            pool.take_parked()
            before = sum(_prepared(pool))
            await asyncio.sleep(0.005)
            assert sum(_prepared(pool)) <= before
