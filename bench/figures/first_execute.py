"""Create and first execute, one session after the other. The bare chain does the same between the rounds."""

from bench.bare_chain import bare_chain
from bench.baselines import CODE
from bench.context import Context, bun_baseline, sessions, stopwatch
from bench.report import Baseline, Row, ratio
from bench.statistics import summarise


async def measure(context: Context) -> list[Row]:
    scale, client = context.scale, context.client
    times: list[float] = []
    host: list[float] = []
    bare: list[float] = []
    for _ in range(scale.rounds):
        host += await context.bun_runs()
        async with sessions(context) as made:
            for _ in range(int(context.server.pool_size * scale.pool_share)):
                created = await made.create()
                times.append(created + await stopwatch(client.execute(made.ids[-1], code=CODE)))
        host += await context.bun_runs()
        async with bare_chain(context, scale.execution_sessions) as chain:
            bare += [await chain.create_and_code(guest) for guest in range(scale.execution_sessions)]
    measured, baseline, chained = summarise(times), bun_baseline(host), summarise(bare)
    bun = baseline.measured.p50
    return [
        Row(
            figure="first-execute",
            what="create + first execute of console.log(1)",
            measured=measured,
            baselines=(baseline, Baseline("the bare chain", chained)),
            checks=(ratio("p50", measured.p50, bun, 1.5), ratio("p99", measured.p99, bun, 5)),
            note=f"the bare chain has {chained.p50 / bun:.2f}×",
        )
    ]
