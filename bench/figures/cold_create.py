"""Creating sessions with an empty pool: each waits for its own sandbox to start."""

import asyncio

from bench.bare_runtime import crun_runs
from bench.context import MS, Context, sessions
from bench.report import Baseline, Row, ratio
from bench.statistics import summarise

TRIES = 5  # creates for each one that counts, since the server starts more sandboxes meanwhile


async def measure(context: Context) -> list[Row]:
    scale = context.scale
    times: list[float] = []
    await context.settled()
    bare = await asyncio.to_thread(crun_runs, context.server, scale.runtime_runs)
    async with sessions(context) as made:
        await made.create_many(context.server.pool_size)
        for _ in range(TRIES * scale.cold_creates):
            if await context.client.gauge("buntime_pool_parked") > 0:
                await made.create()  # empties the pool again
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
            note="the server refills its pool at the same time",
        )
    ]
