"""A server is killed with many live sessions. How soon does the next one answer, and when has it adopted them all?"""

import asyncio
import random
import time

from bench.client import Client
from bench.context import Context, beside, each, sessions
from bench.report import Baseline, Check, Row
from bench.statistics import summarise

FEW, POOL_SIZE, AT_ONCE = 10, 16, 4
SAMPLE = 20  # sessions that are used at once after the start
MOST_SECONDS = 2.0


async def measure(context: Context) -> list[Row]:
    few = await _restarted(context, FEW)
    count = context.scale.restarted_sessions
    ready, used, adopted = await _restarted(context, count)
    baseline = Baseline(f"{FEW} live", summarise([few[0] * 1000]))
    return [
        Row(
            figure="restart",
            what=f"start after a kill with {count} live sessions",
            measured=summarise([ready * 1000]),
            baselines=(baseline,),
            checks=(Check("first answer", ready, MOST_SECONDS, " s"),),
            note=f"the slowest of {SAMPLE} sessions that were used at once answered {used:.1f} s after it was ready, "
            f"with {FEW} live {few[1]:.1f} s; all adopted {adopted:.1f} s after it was ready, {few[2]:.1f} s",
        )
    ]


async def _restarted(context: Context, count: int) -> tuple[float, float, float]:
    """Returns seconds until the server is ready, and from then until the sample has answered, and all are adopted."""
    async with beside(context, POOL_SIZE) as other, sessions(other) as made:
        while len(made.ids) < count:
            await made.create_many(min(100, count - len(made.ids)), AT_ONCE)
            context.say(f"  {len(made.ids)} live sessions")
        await each(made.ids, lambda session: other.client.execute(session, command="sleep 100000 &"), AT_ONCE)
        ready = await asyncio.to_thread(other.server.restart)
        began, server = time.monotonic(), other.server
        async with Client(server.url, server.key, server.config.metrics_socket) as client:  # the old connections broke
            sample = random.Random(1).sample(made.ids, min(SAMPLE, count))
            await each(sample, lambda session: client.execute(session, command="pgrep -x sleep"), AT_ONCE)
            used = time.monotonic() - began
            while await client.gauge("buntime_sandboxes_to_adopt"):  # noqa: ASYNC110 - the server changes it
                await asyncio.sleep(0.1)
            return ready, used, time.monotonic() - began
