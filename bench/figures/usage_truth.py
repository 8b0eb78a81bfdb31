"""CPU seconds of mixed sessions with sleeps and kills of the server: the sum of windows, against the cgroups' truth."""

from bench.context import Context, beside
from bench.metered import Plan, Run, compared
from bench.report import Check, Row

MOST_PERCENT = 1.0
POOL_SIZE = 16


async def measure(context: Context) -> list[Row]:
    scale = context.scale
    plan = Plan(scale.metered_sessions, scale.metered_seconds, scale.metered_sleeps, scale.metered_kills)
    async with beside(context, POOL_SIZE) as other:
        run = Run(other.server, plan, context.say)
        windows = await run.finish()
    found = compared(run.watched, windows)
    return [
        Row(
            figure="usage-truth",
            what=f"CPU of {plan.sessions} mixed sessions over {plan.seconds} s with {plan.sleeps} sleeps and "
            f"{plan.kills} kills of the server, windows against cgroups",
            checks=(
                Check("difference", found.percent, MOST_PERCENT, " %"),
                Check("gaps and overlaps", found.gaps, 0, ""),
                Check("doubled", found.doubled, 0, ""),
            ),
            note=f"windows {found.windows:.3f} s, cgroups {found.truth:.3f} s, the worst session is off by "
            f"{found.worst:.3f} s; {len(windows)} windows; {run.executed} executes, {run.broken} broken by kills",
        )
    ]
