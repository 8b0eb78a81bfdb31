"""What a wake costs with many threads on the host: `pivot_root`, which attaches a root, looks at each of them."""

from bench.context import Context, beside, sessions, stopwatch
from bench.report import Baseline, Row
from bench.statistics import Summary, summarise
from bench.threads import sleeping_threads


async def measure(context: Context) -> list[Row]:
    rows = list[Row]()
    async with beside(context, pool_size=0) as poolless:
        for count in context.scale.thread_counts:
            with sleeping_threads(count):
                attached, started = await _wakes(context), await _wakes(poolless)
            rows.append(
                Row(
                    figure="attach",
                    what=f"wake from deep sleep, {count or 'few'} threads on the host",
                    measured=attached,
                    baselines=(Baseline("the same with an empty pool", started),),
                )
            )
    return rows


async def _wakes(context: Context) -> Summary:
    """Milliseconds of one wake after the other, each with something parked where there is a pool."""
    times = list[float]()
    async with sessions(context) as made:
        await made.create_many(context.scale.woken_sessions)
        for session in made.ids:
            await context.client.sleep(session, "deep-sleep")
        for session in made.ids:
            await context.pool_filled()
            times.append(await stopwatch(context.client.wake(session)))
    return summarise(times)
