"""Restoring a running session in place, beside the wake of one that has as much, from deep sleep."""

from bench import residents
from bench.context import Context, sessions, stopwatch
from bench.report import Baseline, Row, ratio
from bench.statistics import summarise

MOST = 2
MB = 1 << 20
LIMITS = {"cpu": 2, "disk": 4096}
CHANGE = "head -c 10M /dev/urandom > changed"


async def measure(context: Context) -> list[Row]:
    client, size = context.client, context.scale.restored_mb
    restores, wakes = list[float](), list[float]()
    async with sessions(context) as made:
        await made.create_many(2, resourceLimits=LIMITS)
        restored, asleep = made.ids
        for session in made.ids:
            await residents.fill(client, session, "tree", size, MB, "text")
        snapshot = await client.snapshot(restored)
        for _ in range(context.scale.restores):
            await client.execute(restored, command=CHANGE)
            await client.sleep(asleep, "deep-sleep")
            await context.pool_filled()
            restores.append(await stopwatch(client.restore(restored, snapshot)))
            await context.pool_filled()
            wakes.append(await stopwatch(client.wake(asleep)))
        await client.delete_snapshot(snapshot)
    measured, baseline = summarise(restores), summarise(wakes)
    return [
        Row(
            figure="restore-in-place",
            what=f"restore in place of a running session with {size} MB",
            measured=measured,
            baselines=(Baseline("wake from deep sleep with as much, volume on this host", baseline),),
            checks=(ratio("p50", measured.p50, baseline.p50, MOST),),
        )
    ]
