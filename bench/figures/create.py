"""Creating sessions one after the other while the pool lasts."""

import asyncio

from bench import baselines
from bench.context import MS, Context, sessions, stopwatch
from bench.report import Baseline, Check, Row
from bench.statistics import summarise

P50_MS, P99_MS = 5.0, 25.0


async def measure(context: Context) -> list[Row]:
    scale, client = context.scale, context.client
    times: list[float] = []
    trips: list[float] = []
    commits: list[float] = []
    for _ in range(scale.rounds):
        trips += [await stopwatch(client.healthz()) for _ in range(scale.baseline_runs)]
        commits += await asyncio.to_thread(baselines.commits, context.server.scratch, scale.baseline_runs)
        async with sessions(context) as made:
            for _ in range(int(context.server.pool_size * scale.pool_share)):
                times.append(await made.create())
    measured = summarise(times)
    return [
        Row(
            figure="create",
            what="create, while the pool lasts",
            measured=measured,
            baselines=(
                Baseline("SQLite commit", summarise([seconds * MS for seconds in commits])),
                Baseline("HTTP round trip (/healthz)", summarise(trips)),
            ),
            checks=(Check("p50", measured.p50, P50_MS, " ms"), Check("p99", measured.p99, P99_MS, " ms")),
        )
    ]
