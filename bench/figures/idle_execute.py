"""The first execute in a suspended session, compared with one in an active session that was quiet as long."""

import asyncio

from bench.baselines import CODE
from bench.context import Context, each, sessions, stopwatch
from bench.report import Baseline, Check, Row
from bench.statistics import summarise

MOST_MS = 5.0
QUIET_SECONDS = 1.0  # quiet time before a round: spares are parked, and CPU quotas are full again
SLEEPS_AT_ONCE = 4


async def measure(context: Context) -> list[Row]:
    scale, client = context.scale, context.client
    times: dict[bool, list[float]] = {False: [], True: []}
    async with sessions(context) as made:
        await made.create_many(scale.idle_sessions)
        await each(made.ids, lambda session: client.execute(session, code=CODE), 1)
        await context.settled(scale.idle_sessions)
        for turn in range(2 * scale.idle_rounds):
            await asyncio.sleep(QUIET_SECONDS)
            await each(made.ids[turn % 2 :: 2], lambda session: client.sleep(session, "idle"), SLEEPS_AT_ONCE)
            await asyncio.sleep(QUIET_SECONDS)
            for place, session in enumerate(made.ids):
                suspended = place % 2 == turn % 2
                times[suspended].append(await stopwatch(client.execute(session, code=CODE)))
    measured, active = summarise(times[True]), summarise(times[False])
    return [
        Row(
            figure="idle-execute",
            what="first execute in an idle session",
            measured=measured,
            baselines=(Baseline("in an active one", active),),
            checks=(Check("p50: more by", measured.p50 - active.p50, MOST_MS, " ms"),),
        )
    ]
