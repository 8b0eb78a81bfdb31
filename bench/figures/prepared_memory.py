"""The extra memory of a session that keeps a prepared process, over one that has run nothing."""

from bench import machine
from bench.baselines import CODE
from bench.context import Context, beside, each, sessions
from bench.figures.memory import both
from bench.report import Row

EXECUTES_AT_ONCE = 2


async def measure(context: Context) -> list[Row]:
    async with beside(context, context.server.pool_size, {"BUNTIME_POOL_PREPARED": "0"}) as other:
        return await _measure(other)


async def _measure(context: Context) -> list[Row]:
    count, instance = context.scale.prepared_sessions, context.server.config.instance
    async with sessions(context) as made:
        await made.create_many(count)
        await context.settled(count)
        unused, processes = await both(instance), machine.processes_of(instance)
        for _ in range(2):
            await each(made.ids, lambda session: context.client.execute(session, code=CODE), EXECUTES_AT_ONCE)
        used, more = await both(instance), machine.processes_of(instance) - processes
    by_machine, by_cgroups = (unused[0] - used[0]) / count, (used[1] - unused[1]) / count
    return [
        Row(
            figure="prepared-memory",
            what=f"memory of a session that has run code twice, over one that has not (over {count})",
            note=f"by MemAvailable {by_machine:.2f} MB, by cgroups {by_cgroups:.2f} MB; "
            f"more processes in each: {more / count:.1f}",
        )
    ]
