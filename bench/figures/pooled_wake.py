"""The first execute after deep sleep with the volume on this host, beside a create and its first execute.

Both take a sandbox from the pool.
"""

from bench.baselines import CODE
from bench.context import Context, sessions, stopwatch
from bench.report import Baseline, Check, Row, ratio
from bench.statistics import summarise

MOST, MOST_MS = 1.5, 30.0


async def measure(context: Context) -> list[Row]:
    client = context.client
    wakes, creates = list[float](), list[float]()
    async with sessions(context) as made:
        await made.create_many(context.scale.woken_sessions)
        for _ in range(context.scale.tree_rounds):
            for session in made.ids:
                await client.execute(session, code=CODE)
                await client.sleep(session, "deep-sleep")
            for session in list(made.ids):
                await context.pool_filled()
                wakes.append(await stopwatch(client.execute(session, code=CODE)))
                await context.pool_filled()
                created = await made.create()
                creates.append(created + await stopwatch(client.execute(made.ids[-1], code=CODE)))
                await client.delete(made.ids.pop())
    measured, baseline = summarise(wakes), summarise(creates)
    return [
        Row(
            figure="pooled-wake",
            what="first execute after deep sleep, volume on this host, from the pool",
            measured=measured,
            baselines=(Baseline("create + first execute from the pool", baseline),),
            checks=(ratio("p50", measured.p50, baseline.p50, MOST), Check("p50", measured.p50, MOST_MS, " ms")),
        )
    ]
