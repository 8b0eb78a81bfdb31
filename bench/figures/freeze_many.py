"""The keeper suspends many sessions that were last active at the same time. Do other requests notice?"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from bench.baselines import CODE
from bench.context import Context, Sessions, beside, each, sessions, stopwatch
from bench.report import Baseline, Row, ratio
from bench.statistics import summarise

MOST = {"GET": 1.5, "execute": 2, "create": 2}
IDLE_AFTER = 14  # seconds: enough to touch all sessions and to time other requests before
SETTINGS = {"BUNTIME_IDLE_AFTER": str(IDLE_AFTER)}
POOL_SIZE = 40
OTHERS = 12  # sessions that stay in use
TOUCHES_AT_ONCE = 4
LOOK_SECONDS = 0.25
MARGIN = 1.0  # seconds at the boundary that count for neither side
PAUSES = {"GET": 0.004, "execute": 0.02, "create": 0.5}  # seconds between two requests of a kind

type Timed = list[tuple[float, float]]  # start, and duration in milliseconds


async def measure(context: Context) -> list[Row]:
    quiet: dict[str, list[float]] = {kind: [] for kind in PAUSES}
    busy: dict[str, list[float]] = {kind: [] for kind in PAUSES}
    seconds: list[float] = []
    count = context.scale.frozen_sessions
    async with beside(context, POOL_SIZE, SETTINGS) as other, sessions(other) as made, sessions(other) as others:
        await others.create_many(OTHERS)
        await made.create_many(count)
        await other.settled(count + OTHERS)
        for _ in range(context.scale.rounds):
            await each(made.ids, lambda session: _touch(other, session), TOUCHES_AT_ONCE)
            times, begun, ended = await _round(other, others, count)
            seconds.append(ended - begun)
            for kind, timed in times.items():
                quiet[kind] += [spent for when, spent in timed if when < begun - MARGIN]
                busy[kind] += [spent for when, spent in timed if begun - LOOK_SECONDS < when < ended]
    return [_row(kind, busy[kind], quiet[kind], count, seconds) for kind in PAUSES]


async def _touch(context: Context, session: str) -> None:
    await context.client.get("/files/list", {"sessionId": session})


async def _round(context: Context, others: Sessions, count: int) -> tuple[dict[str, Timed], float, float]:
    """Returns the times of other requests, and when the first and the last of `count` sessions was seen suspended."""
    active = others.ids[0]
    turn = iter(range(10**9))

    async def execute() -> None:
        await context.client.execute(others.ids[next(turn) % OTHERS], code=CODE)

    kinds: dict[str, Callable[[], Awaitable[object]]] = {
        "GET": lambda: context.client.get(f"/sessions/{active}"),
        "execute": execute,
        "create": others.create,
    }
    times: dict[str, Timed] = {kind: [] for kind in kinds}
    workers = [asyncio.create_task(_repeat(work, times[kind], PAUSES[kind])) for kind, work in kinds.items()]
    try:
        await asyncio.sleep(MARGIN)
        begun, ended = await _suspension(context, count, workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    created, others.ids = others.ids[OTHERS:], others.ids[:OTHERS]
    await each(created, context.client.delete, TOUCHES_AT_ONCE)
    return times, begun, ended


async def _suspension(context: Context, count: int, workers: list[asyncio.Task[None]]) -> tuple[float, float]:
    begun = None
    while (suspended := await context.client.count("idle")) < count:
        if begun is None and suspended:
            begun = time.perf_counter()
        for worker in workers:
            if worker.done():
                worker.result()  # a worker ends only by failing
        await asyncio.sleep(LOOK_SECONDS)
    ended = time.perf_counter()
    return begun or ended, ended


async def _repeat(work: Callable[[], Awaitable[object]], times: Timed, pause: float) -> None:
    while True:
        start = time.perf_counter()
        times.append((start, await stopwatch(work())))
        await asyncio.sleep(pause)


def _row(kind: str, busy: list[float], quiet: list[float], count: int, seconds: list[float]) -> Row:
    measured, baseline = summarise(busy), summarise(quiet)
    return Row(
        figure="freeze-many",
        what=f"{kind} while the keeper suspends {count} sessions",
        measured=measured,
        baselines=(Baseline("while it does not", baseline),),
        checks=(ratio("p99", measured.p99, baseline.p99, MOST[kind]),),
        note=f"p99 without {baseline.p99:.1f} ms; all suspended within {max(seconds):.1f} s",
    )
