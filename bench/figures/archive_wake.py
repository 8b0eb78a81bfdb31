"""The first execute in a session that S3 has as a chain, beside `zstd -d` and `tar -x` of the same files.

Each sleep adds an increment to the chain. The wake takes a sandbox from the pool. The baseline extracts onto the
volumes' file system, with the same limit, and does not wait until the files are on disk. A second baseline does. What
all of them read is in the page cache.
"""

import asyncio
from collections.abc import Sequence

from bench import archived, trees
from bench.context import Context, beside, sessions, stopwatch
from bench.report import Baseline, Check, Row, ratio
from bench.statistics import summarise
from tests.contracts.seaweed import BUCKET, seaweed

MOST_OF_FEW, MOST_OF_MANY, MOST_MS = 1.5, 0.3, 3000.0
POOL = 4
SETTINGS = {"BUNTIME_CACHE_GB": "0", "BUNTIME_TICK_MS": "200"}


async def measure_few(context: Context) -> list[Row]:
    scale = context.scale
    wakes, plain, durable = await _woken(context, scale.tree_files, scale.wakes_of_few)
    return [_row("wake-few", scale.tree_files, wakes, plain, durable, MOST_OF_FEW)]


async def measure_many(context: Context) -> list[Row]:
    scale = context.scale
    wakes, plain, durable = await _woken(context, scale.archived_files, scale.wakes_of_many)
    within = Check("p50", summarise(wakes).p50, MOST_MS, " ms")
    return [_row("wake-many", scale.archived_files, wakes, plain, durable, MOST_OF_MANY, within)]


def _row(
    figure: str,
    files: int,
    wakes: Sequence[float],
    plain: Sequence[float],
    durable: Sequence[float],
    most: float,
    *checks: Check,
) -> Row:
    measured, baseline = summarise(wakes), summarise(plain)
    return Row(
        figure=figure,
        what=f"first execute after deep sleep, {files * trees.FILE_BYTES / 1e6:.0f} MB in {files} files, from S3",
        measured=measured,
        baselines=(Baseline("zstd -d and tar -x", baseline), Baseline("the same, then sync", summarise(durable))),
        checks=(ratio("p50", measured.p50, baseline.p50, most), *checks),
        note=f"chains of 1 to {len(wakes)} objects",
    )


async def _woken(context: Context, files: int, turns: int) -> tuple[list[float], list[float], list[float]]:
    """Returns the milliseconds of the wakes, of the baseline, and of the baseline with `sync`."""
    home = context.server.scratch / f"seaweed{files}"
    home.mkdir()
    with seaweed(home) as store:
        environ = {**SETTINGS, **store.environ, "BUNTIME_ARCHIVE": f"s3://{BUCKET}/bench"}
        async with beside(context, POOL, environ) as other:
            return await _turns(other, files, turns)


async def _turns(context: Context, files: int, turns: int) -> tuple[list[float], list[float], list[float]]:
    client, packed = context.client, context.server.scratch / "packed"
    wakes, plain, durable = list[float](), list[float](), list[float]()
    async with sessions(context) as made:
        await made.create(resourceLimits=archived.LIMITS)
        session = made.ids[0]
        await trees.write(client, [session], files)
        for turn in range(turns):
            await client.execute(session, command=archived.CHANGE)
            if not turn:
                await asyncio.to_thread(trees.settle_on_disk, context.server)
                await asyncio.to_thread(trees.pack, trees.volume(context.server, session), packed)
            await archived.deep_sleep(client, session)
            await archived.evicted(context)
            await context.pool_filled()
            wakes.append(await stopwatch(archived.first_execute(client, session)))
            await context.pool_filled()
            with trees.places_to_unpack(context.server, 1, archived.LIMITS["disk"]) as (place,):
                unpacked, on_disk = await asyncio.to_thread(trees.timed_unpack, context.server, packed, place)
            plain.append(unpacked)
            durable.append(on_disk)
    return wakes, plain, durable
