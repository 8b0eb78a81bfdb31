"""The first execute in a session that S3 has as a chain, beside `zstd -d` and `tar -x` of the same files.

Each sleep adds an increment to the chain. The wake takes a sandbox from the pool. The baseline extracts onto the
volumes' file system, with the same limit, and does not wait until the files are on disk. A second baseline does. What
all of them read is in the page cache.
"""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from bench import archived, trees
from bench.context import Context, beside, sessions, stopwatch
from bench.report import Baseline, Row, ratio
from bench.statistics import summarise
from tests.contracts.seaweed import BUCKET, seaweed

MOST_OF_FEW, MOST_OF_MANY = 1.5, 0.3
POOL = 4
SETTINGS = {"BUNTIME_CACHE_GB": "0", "BUNTIME_TICK_MS": "200"}


@dataclass(slots=True)
class Times:
    """Milliseconds, and the most objects that a wake read."""

    wakes: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    durable: list[float] = field(default_factory=list)
    longest: int = 0


async def measure_few(context: Context) -> list[Row]:
    files = context.scale.tree_files
    return [_row("wake-few", files, await _woken(context, files, context.scale.wakes_of_few), MOST_OF_FEW)]


async def measure_many(context: Context) -> list[Row]:
    files = context.scale.archived_files
    times = await _woken(context, files, context.scale.wakes_of_many)
    return [_row("wake-many", files, times, MOST_OF_MANY)]


def _row(figure: str, files: int, times: Times, most: float) -> Row:
    measured, baseline, durable = (summarise(each) for each in (times.wakes, times.plain, times.durable))
    return Row(
        figure=figure,
        what=f"first execute after deep sleep, {files * trees.FILE_BYTES / 1e6:.0f} MB in {files} files, from S3",
        measured=measured,
        baselines=(Baseline("zstd -d and tar -x", baseline), Baseline("the same, then sync", durable)),
        checks=(ratio("p50", measured.p50, baseline.p50, most),),
        note=f"the longest chain: {times.longest} objects",
    )


async def _woken(context: Context, files: int, turns: int) -> Times:
    home = context.server.scratch / f"seaweed{files}"
    home.mkdir()
    with seaweed(home) as store:
        environ = {**SETTINGS, **store.environ, "BUNTIME_ARCHIVE": f"s3://{BUCKET}/bench"}
        async with beside(context, POOL, environ) as other:
            return await _turns(other, files, turns)


async def _turns(context: Context, files: int, turns: int) -> Times:
    client, packed = context.client, context.server.scratch / "packed"
    times, chain = Times(), 0
    async with sessions(context) as made:
        await made.create(resourceLimits=archived.LIMITS)
        session = made.ids[0]
        await trees.write(client, [session], files)
        for turn in range(turns):
            await client.execute(session, command=archived.CHANGE)
            if not turn:
                await asyncio.to_thread(trees.settle_on_disk, context.server)
                await asyncio.to_thread(trees.pack, trees.volume(context.server, session), packed)
            sleep = await archived.deep_sleep(client, session)
            chain = 1 if sleep.full else chain + 1
            times.longest = max(times.longest, chain)
            await archived.evicted(context)
            await _wake(context, session, packed, times)
    return times


async def _wake(context: Context, session: str, packed: Path, times: Times) -> None:
    await context.pool_filled()
    times.wakes.append(await stopwatch(archived.first_execute(context.client, session)))
    await context.pool_filled()
    with trees.places_to_unpack(context.server, 1, archived.LIMITS["disk"]) as (place,):
        plain, durable = await asyncio.to_thread(trees.timed_unpack, context.server, packed, place)
    times.plain.append(plain)
    times.durable.append(durable)
