"""A machine full of live sessions. Does the thousandth cost as much as the first?"""

from bench.baselines import CODE
from bench.context import Context, Sessions, sessions, stopwatch
from bench.report import Baseline, Row, ratio
from bench.statistics import summarise

MOST = 3


async def measure(context: Context) -> list[Row]:
    scale = context.scale
    total, sample = scale.live_sessions, scale.live_sample
    async with sessions(context) as made:
        first_creates = [await made.create() for _ in range(sample)]
        await context.settled(sample)
        first_runs = await _run_again(context, made.ids)
        await _fill(context, made, total - sample)
        await context.settled(total - sample)
        last_creates = [await made.create() for _ in range(sample)]
        await context.settled(total)
        spread = made.ids[:: total // sample][:sample]
        last_runs = await _run_again(context, spread)
    return [
        _row(f"create with {total} live sessions", last_creates, first_creates, sample),
        _row(f"execute again with {total} live sessions", last_runs, first_runs, sample),
    ]


async def _fill(context: Context, made: Sessions, until: int) -> None:
    """Creates as many at a time as the pool holds, so that none is refused."""
    while len(made.ids) < until:
        step = min(context.scale.live_sample, until - len(made.ids))
        await made.create_many(step)
        context.say(f"  {len(made.ids)} live sessions")


async def _run_again(context: Context, ids: list[str]) -> list[float]:
    """Returns the milliseconds of each session's second run."""
    for session in ids:
        await context.client.execute(session, code=CODE)
    return [await stopwatch(context.client.execute(session, code=CODE)) for session in ids]


def _row(what: str, last: list[float], first: list[float], sample: int) -> Row:
    measured, baseline = summarise(last), Baseline(f"the first {sample}", summarise(first))
    return Row(
        figure="live-sessions",
        what=what,
        measured=measured,
        baselines=(baseline,),
        checks=(ratio("p50", measured.p50, baseline.measured.p50, MOST),),
    )
