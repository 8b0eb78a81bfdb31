"""The memory of one more session: how much less the machine has, and what the kernel charges to the sandboxes."""

import asyncio
from collections.abc import Callable

from bench import machine
from bench.baselines import CODE
from bench.context import Context, beside, each, sessions
from bench.report import Check, Row

MOST_MB = 6.0
STEADY_MB, STEADY_TRIES = 2.0, 40
EXECUTES_AT_ONCE = 2


async def measure(context: Context) -> list[Row]:
    async with beside(context, context.server.pool_size, {"BUNTIME_POOL_PREPARED": "0"}) as other:
        return await _measure(other)


async def _measure(context: Context) -> list[Row]:
    count, instance = context.scale.memory_sessions, context.server.config.instance
    async with sessions(context) as made:
        before = await both(instance)
        await made.create_many(count)
        await context.settled(count)
        parked = await both(instance)
        await each(made.ids, lambda session: context.client.execute(session, code=CODE), EXECUTES_AT_ONCE)
        used = await both(instance)
    pool = context.server.pool_size
    return [
        _row(f"memory of one more parked session (over {count})", before, parked, count),
        _row(f"memory of one more session that ran code (over {count})", before, used, count),
        Row(
            figure="memory",
            what="the pool as shipped, without started Buns",
            note=f"{pool} parked sandboxes; {before[1]:.0f} MB by their cgroups, "
            f"{pool * (before[0] - parked[0]) / count:.0f} MB by MemAvailable",
        ),
    ]


def _row(what: str, before: tuple[float, float], after: tuple[float, float], count: int) -> Row:
    by_machine, by_cgroups = (before[0] - after[0]) / count, (after[1] - before[1]) / count
    return Row(
        figure="memory",
        what=what,
        unit="MB",
        checks=(Check("MemAvailable", by_machine, MOST_MB, " MB"),),
        note=f"by cgroups {by_cgroups:.2f} MB",
    )


async def both(instance: str) -> tuple[float, float]:
    """Returns the MB available on the machine, and the MB charged to the sandboxes."""
    return await steady(machine.available_mb), await steady(lambda: machine.sandboxes_mb(instance))


async def steady(read: Callable[[], float]) -> float:
    """Returns a value once it is stable, or the last one: other programs may keep it moving."""
    last = read()
    for _ in range(STEADY_TRIES):
        await asyncio.sleep(0.5)
        now = read()
        if abs(now - last) < STEADY_MB:
            return now
        last = now
    return last
