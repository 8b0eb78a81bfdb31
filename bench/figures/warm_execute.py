"""Execute in sessions that have run code before. They take turns, so that no session's CPU quota decides.

The bare chain does the same at the end.
"""

from bench.bare_chain import bare_chain
from bench.baselines import CODE
from bench.context import Context, bun_baseline, sessions, stopwatch
from bench.report import Baseline, Row, ratio
from bench.statistics import summarise


async def measure(context: Context) -> list[Row]:
    scale, client = context.scale, context.client
    times: list[float] = []
    async with sessions(context) as made:
        for _ in range(scale.warm_sessions):
            await made.create()
        for session in made.ids:
            await client.execute(session, code=CODE)
        host = await context.bun_runs()
        for turn in range(scale.runs_per_session):
            for session in made.ids:
                times.append(await stopwatch(client.execute(session, code=CODE)))
            if turn == scale.runs_per_session // 2:
                host += await context.bun_runs()
        host += await context.bun_runs()
    async with bare_chain(context, scale.execution_sessions) as chain:
        bare = [await chain.code(guest) for _ in range(scale.rounds) for guest in range(scale.execution_sessions)]
    measured, baseline, chained = summarise(times), bun_baseline(host), summarise(bare)
    return [
        Row(
            figure="warm-execute",
            what=f"execute in a warm session ({scale.warm_sessions} take turns)",
            measured=measured,
            baselines=(baseline, Baseline("the bare chain", chained)),
            checks=(ratio("p50", measured.p50, baseline.measured.p50, 0.8),),
            note=f"the bare chain has {chained.p50 / baseline.measured.p50:.2f}×",
        )
    ]
