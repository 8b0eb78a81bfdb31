"""Forks of a running session, until all of them have answered an execute, beside creates."""

import asyncio

from bench import residents
from bench.baselines import CODE
from bench.context import Context, Sessions, sessions, stopwatch
from bench.report import Baseline, Row, ratio
from bench.statistics import summarise

MOST = 2
MB = 1 << 20
WRITES = 'while :; do echo "$SECONDS" >> written; sleep 0.1; done'


async def measure(context: Context) -> list[Row]:
    async with sessions(context) as sources:
        await sources.create()
        source = sources.ids[0]
        await residents.fill(context.client, source, "tree", context.scale.fork_mb, MB, "random")
        await residents.start(context.client, source, WRITES)
        return [await _one(context, source), await _many(context, source)]


async def _one(context: Context, source: str) -> Row:
    client = context.client
    forks, alone, creates = list[float](), list[float](), list[float]()
    async with sessions(context, live_before=1) as made:
        for _ in range(context.scale.fork_singles):
            await context.pool_filled()
            alone.append(await stopwatch(_fork(context, made, source, 1)))
            forks.append(alone[-1] + await stopwatch(client.execute(made.ids[-1], code=CODE)))
            await made.delete(made.ids[-1])
            await context.pool_filled()
            created = await made.create()
            creates.append(created + await stopwatch(client.execute(made.ids[-1], code=CODE)))
            await made.delete(made.ids[-1])
    measured, baseline = summarise(forks), summarise(creates)
    return Row(
        figure="fork",
        what=f"fork of a running session with {context.scale.fork_mb} MB + first execute",
        measured=measured,
        baselines=(Baseline("create + first execute", baseline),),
        checks=(ratio("p50", measured.p50, baseline.p50, MOST),),
        note=f"the fork alone: p50 {summarise(alone).p50:.1f} ms",
    )


async def _many(context: Context, source: str) -> Row:
    count = context.scale.fork_many
    forks, alone, creates = list[float](), list[float](), list[float]()
    for _ in range(context.scale.fork_rounds):
        async with sessions(context, live_before=1) as made:
            alone.append(await stopwatch(_fork(context, made, source, count)))
            forks.append(alone[-1] + await stopwatch(_execute_all(context, made)))
        async with sessions(context, live_before=1) as made:
            # each client connects before the clock starts, as those of the forks' executes do
            await asyncio.gather(*(context.client.healthz() for _ in range(count)))
            creates.append(await stopwatch(asyncio.gather(*(_create(context, made) for _ in range(count)))))
    measured, baseline = summarise(forks), summarise(creates)
    return Row(
        figure="fork",
        what=f"{count} forks of it at once, until all have answered an execute",
        measured=measured,
        baselines=(Baseline(f"{count} × create + first execute at once", baseline),),
        checks=(ratio("wall", measured.p50, baseline.p50, MOST),),
        note=f"the answer to the fork alone: p50 {summarise(alone).p50:.0f} ms",
    )


async def _fork(context: Context, made: Sessions, source: str, count: int) -> None:
    made.ids += await context.client.fork(source, count)


async def _execute_all(context: Context, made: Sessions) -> None:
    await asyncio.gather(*(context.client.execute(session, code=CODE) for session in made.ids))


async def _create(context: Context, made: Sessions) -> None:
    session = await context.client.create()
    made.ids.append(session)
    await context.client.execute(session, code=CODE)
