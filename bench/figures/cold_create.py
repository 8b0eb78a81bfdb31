"""Creating sessions when the pool is empty: each waits for the start of its own sandbox."""

import asyncio

from bench.bare_runtime import crun_runs
from bench.context import MS, Context, sessions
from bench.report import Baseline, Row, ratio
from bench.statistics import summarise

TRIES = 5  # creates for each that is counted: the server starts others ahead meanwhile


async def measure(context: Context) -> list[Row]:
    scale = context.scale
    times: list[float] = []
    await context.settled()
    bare = await asyncio.to_thread(crun_runs, context.server, scale.runtime_runs)
    async with sessions(context) as made:
        await made.create_many(context.server.pool_size)
        for _ in range(TRIES * scale.cold_creates):
            if await context.client.gauge("buntime_pool") > 0:
                await made.create()  # takes away what is parked again
            else:
                times.append(await made.create())
            if len(times) == scale.cold_creates:
                break
    measured = summarise(times)
    baseline = Baseline("crun run of the same spec", summarise([seconds * MS for seconds in bare]))
    return [
        Row(
            figure="cold-create",
            what="create with an empty pool",
            measured=measured,
            baselines=(baseline,),
            checks=(ratio("p50", measured.p50, baseline.measured.p50, 3),),
            note="the server fills its pool beside them",
        )
    ]
