"""The first execute after deep sleep with the volume on this host, compared with creates from an empty pool."""

from bench.baselines import CODE
from bench.context import Context, beside, sessions, stopwatch
from bench.report import Baseline, Check, Row, ratio
from bench.statistics import summarise

MOST, MOST_MS = 2, 100.0


async def measure(context: Context) -> list[Row]:
    wakes: list[float] = []
    creates: list[float] = []
    firsts: list[float] = []
    async with beside(context, pool_size=0) as other, sessions(other) as made:
        client = other.client
        await made.create_many(context.scale.woken_sessions)
        for _ in range(context.scale.tree_rounds):
            for session in made.ids:
                await client.execute(session, code=CODE)
                await client.sleep(session, "deep-sleep")
            for session in list(made.ids):
                wakes.append(await stopwatch(client.execute(session, code=CODE)))
                creates.append(await made.create())
                firsts.append(creates[-1] + await stopwatch(client.execute(made.ids[-1], code=CODE)))
                await client.delete(made.ids.pop())
    measured, baseline = summarise(wakes), summarise(creates)
    return [
        Row(
            figure="wake",
            what="first execute after deep sleep, volume on this host",
            measured=measured,
            baselines=(
                Baseline("create, empty pool", baseline),
                Baseline("create + first execute, empty pool", summarise(firsts)),
            ),
            checks=(
                ratio("p50", measured.p50, baseline.p50, MOST),
                Check("p50", measured.p50, MOST_MS, " ms"),
            ),
        )
    ]
