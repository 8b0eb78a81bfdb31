"""Creates while the pool refills, compared with creates from a pool at rest."""

import asyncio
import random

from bench.context import Context, sessions
from bench.report import Baseline, Row, ratio
from bench.statistics import summarise
from buntime.sandboxes.pool import QUIET_SECONDS

MOST = 3
LEFT_SHARE = 4  # this part of the pool is there when the refill begins
QUIET_PAUSE = QUIET_SECONDS * 0.6  # the pool waits for longer than that before it begins
# long enough that it begins, and ends at any moment of its work
REFILLING_PAUSES = (QUIET_SECONDS * 1.1, QUIET_SECONDS * 2)


async def measure(context: Context) -> list[Row]:
    quiet, refilling = list[float](), list[float]()
    for _ in range(context.scale.rounds):
        async with sessions(context) as made:
            for _ in range(min(context.scale.refilling_creates, context.server.pool_size // 2)):
                await asyncio.sleep(QUIET_PAUSE)
                quiet.append(await made.create())
            parked = await context.client.gauge("buntime_pool_parked")
            await made.create_many(parked - context.server.pool_size // LEFT_SHARE)
            for _ in range(context.scale.refilling_creates):
                await asyncio.sleep(random.uniform(*REFILLING_PAUSES))
                if await context.client.gauge("buntime_pool_parked") >= context.server.pool_size:
                    break
                refilling.append(await made.create())
    measured, baseline = summarise(refilling), summarise(quiet)
    return [
        Row(
            figure="refilling-create",
            what="create while the pool refills",
            measured=measured,
            baselines=(Baseline("while it does not", baseline),),
            checks=(ratio("p99", measured.p99, baseline.p99, MOST),),
            note=f"p99 while it does not {baseline.p99:.1f} ms",
        )
    ]
