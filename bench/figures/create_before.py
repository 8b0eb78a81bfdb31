"""Creating sessions one after the other while the pool lasts, beside the server of an earlier commit."""

from bench import earlier
from bench.context import Context, sessions
from bench.report import Baseline, Row, ratio
from bench.statistics import summarise

MOST = 1.05
WHAT = "create, while the pool lasts"
SHARE = 0.25  # of the pool, that one server uses before it is the other's turn


async def measure(context: Context) -> list[Row]:
    if context.before is None:
        return [Row(figure="create-before", what=WHAT, skipped="--before names no earlier checkout")]
    now, then = list[float](), list[float]()
    count = max(int(context.server.pool_size * SHARE), 1)
    async with earlier.beside(context, context.before) as other:
        both = ((context, now), (other, then))
        for turn in range(context.scale.before_turns):
            for side, times in both if turn % 2 == 0 else both[::-1]:
                await context.settled()
                await other.settled()
                async with sessions(side) as made:
                    times += [await made.create() for _ in range(count)]
    measured, baseline = summarise(now), summarise(then)
    return [
        Row(
            figure="create-before",
            what=WHAT,
            measured=measured,
            baselines=(Baseline(f"at {await earlier.commit(context.before)}", baseline),),
            checks=(ratio("p50", measured.p50, baseline.p50, MOST),),
            note=f"p99 before {baseline.p99:.2f} ms",
        )
    ]
