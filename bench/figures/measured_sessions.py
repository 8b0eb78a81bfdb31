"""What measuring active sessions every 10 seconds costs the server, beside a server that measures none."""

import asyncio
from pathlib import Path

from bench.context import MS, Context, beside, sessions
from bench.report import Baseline, Check, Row
from bench.server import for_sessions
from bench.statistics import summarise
from buntime.measurement import INTERVAL

UNMEASURED = Path(__file__).parents[1] / "programs" / "unmeasured"
SECONDS = 4 * INTERVAL  # of one turn; both servers are read at the same time
CPU = "process_cpu_seconds_total"
MOST_MS = 1.0  # of CPU for one measurement of one session
POOL = 4


async def measure(context: Context) -> list[Row]:
    count, turns = context.scale.measured_sessions, context.scale.measured_turns
    settings = for_sessions(2 * count)
    async with (
        beside(context, POOL, settings) as one,
        beside(context, POOL, settings | {"PYTHONPATH": str(UNMEASURED)}) as other,
        sessions(one) as measured,
        sessions(other) as unmeasured,
    ):
        for made, side in ((measured, one), (unmeasured, other)):
            await made.create_many(count)
            for session in made.ids:
                await side.client.execute(session, command="true")
            await side.settled(count)
        await asyncio.sleep(2 * INTERVAL)  # until each has been measured once
        with_it, without = list[float](), list[float]()
        for _ in range(turns):
            before = [await side.client.number(CPU) for side in (one, other)]
            await asyncio.sleep(SECONDS)
            after = [await side.client.number(CPU) for side in (one, other)]
            for times, begin, end in zip((with_it, without), before, after, strict=True):
                times.append((end - begin) * MS / SECONDS)
    found, baseline = summarise(with_it), summarise(without)
    each = (found.p50 - baseline.p50) * INTERVAL / count
    share = (found.p50 - baseline.p50) / count / MS
    return [
        Row(
            figure="measured-sessions",
            what=f"CPU of the server in a second with {count} active sessions",
            measured=found,
            baselines=(Baseline("no session is measured", baseline),),
            checks=(Check("for a measurement of a session", each, MOST_MS, " ms"),),
            note=f"{share:.3%} of a core for each active session",
        )
    ]
