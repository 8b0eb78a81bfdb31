"""Create and first execute, one session after the other."""

from bench.baselines import CODE
from bench.context import Context, bun_baseline, sessions, stopwatch
from bench.report import Row, ratio
from bench.statistics import summarise


async def measure(context: Context) -> list[Row]:
    scale, client = context.scale, context.client
    times: list[float] = []
    host: list[float] = []
    for _ in range(scale.rounds):
        host += await context.bun_runs()
        async with sessions(context) as made:
            for _ in range(int(context.server.pool_size * scale.pool_share)):
                created = await made.create()
                times.append(created + await stopwatch(client.execute(made.ids[-1], code=CODE)))
        host += await context.bun_runs()
    measured, baseline = summarise(times), bun_baseline(host)
    bare = baseline.measured.p50
    return [
        Row(
            figure="first-execute",
            what="create + first execute of console.log(1)",
            measured=measured,
            baselines=(baseline,),
            checks=(ratio("p50", measured.p50, bare, 1.5), ratio("p99", measured.p99, bare, 5)),
        )
    ]
