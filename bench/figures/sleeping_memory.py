"""The memory of a suspended session, and of one in deep sleep, after it has run code."""

from bench.baselines import CODE
from bench.context import Context, each, sessions
from bench.figures.memory import both
from bench.report import Check, Row

SUSPENDED_MB = 3.0
ASLEEP_MB = 0.1  # counts as none: the noise of MemAvailable, divided among the sessions
AT_ONCE = 2


async def measure(context: Context) -> list[Row]:
    count, instance, client = context.scale.asleep_sessions, context.server.config.instance, context.client
    async with sessions(context) as made:
        before = await both(instance)
        await made.create_many(count)
        await context.settled(count)
        await each(made.ids, lambda session: client.execute(session, code=CODE), AT_ONCE)
        active = await both(instance)
        await each(made.ids, lambda session: client.sleep(session, "idle"), AT_ONCE)
        suspended = await both(instance)
        await each(made.ids, lambda session: client.sleep(session, "deep-sleep"), AT_ONCE)
        await context.settled()
        asleep = await both(instance)
    return [
        _row("suspended", before, suspended, count, SUSPENDED_MB, _each_mb(before, active, count)),
        _row("deep-asleep", before, asleep, count, ASLEEP_MB, _each_mb(before, active, count)),
    ]


def _row(
    state: str,
    before: tuple[float, float],
    after: tuple[float, float],
    count: int,
    most: float,
    active: tuple[float, float],
) -> Row:
    by_machine, by_cgroups = _each_mb(before, after, count)
    return Row(
        figure="sleeping-memory",
        what=f"memory of one more {state} session (over {count})",
        unit="MB",
        checks=(Check("MemAvailable", by_machine, most, " MB"),),
        note=f"by cgroups {by_cgroups:.2f} MB; while it was active {active[0]:.2f} and {active[1]:.2f} MB",
    )


def _each_mb(before: tuple[float, float], after: tuple[float, float], count: int) -> tuple[float, float]:
    return (before[0] - after[0]) / count, (after[1] - before[1]) / count
