"""The memory of one more session: how much less the machine has, and what the kernel charges to the sandboxes."""

import asyncio
from collections.abc import Callable

from bench import machine
from bench.baselines import CODE
from bench.context import Context, beside, each, sessions
from bench.paging import paged_out
from bench.report import Check, Row
from bench.retrying import with_patience
from buntime.sandboxes.kernel.host import total_memory

PARKED_MB, USED_MB, PAGED_OUT_MB = 3.5, 4.5, 1.0
STEADY_MB, STEADY_TRIES = 2.0, 40
CREATED_AT_ONCE, EXECUTES_AT_ONCE = 4, 2


async def measure(context: Context) -> list[Row]:
    async with beside(context, context.server.pool_size, {"BUNTIME_POOL_PREPARED": "0"}) as other:
        return await _measure(other)


async def _measure(context: Context) -> list[Row]:
    count, instance = context.scale.memory_sessions, context.server.config.instance
    swap = total_memory() >> 20  # as scripts/zram makes it
    async with sessions(context) as made:
        before = await both(instance)
        await each(range(count), lambda _: with_patience(made.create), CREATED_AT_ONCE)  # a slow machine refuses some
        await context.settled(count)
        parked = await both(instance)
        await each(made.ids, lambda session: context.client.execute(session, code=CODE), EXECUTES_AT_ONCE)
        used = await both(instance)
        with machine.swap(context.server.scratch / "swap", swap) as refused:
            taken = used[0] - await steady(machine.available_mb)  # by the swap's own tables
            await each(made.ids, lambda session: context.client.sleep(session, "idle"), EXECUTES_AT_ONCE)
            out = 0 if refused else await paged_out(context, made.ids)
            asleep, zram = await both(instance), machine.zram_mb()
            await made.delete_all()
    pool = context.server.pool_size
    return [
        _row(f"memory of one more parked session (over {count})", before, parked, count, PARKED_MB),
        _row(f"memory of one more session that ran code (over {count})", before, used, count, USED_MB),
        _row(
            f"memory of one more session that was suspended and paged out (over {count})",
            (before[0] - taken, before[1]),
            asleep,
            count,
            PAGED_OUT_MB,
            f"; {out} are out{f', no swap: {refused}' if refused else ''}; in zram {zram / count:.2f} MB of it",
        ),
        Row(
            figure="memory",
            what="the pool as shipped, without started Buns",
            note=f"{pool} parked sandboxes; {before[1]:.0f} MB by their cgroups, "
            f"{pool * (before[0] - parked[0]) / count:.0f} MB by what is available",
        ),
    ]


def _row(
    what: str, before: tuple[float, float], after: tuple[float, float], count: int, most: float, note: str = ""
) -> Row:
    by_machine, by_cgroups = (before[0] - after[0]) / count, (after[1] - before[1]) / count
    return Row(
        figure="memory",
        what=what,
        unit="MB",
        checks=(Check("available", by_machine, most, " MB"),),
        note=f"by cgroups {by_cgroups:.2f} MB{note}",
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
