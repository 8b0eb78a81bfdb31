"""Deep sleep with archiving, compared with `tar` and `zstd` of the same tree on the host.

The tree is the session's own volume, and in the page cache for both. `tar` runs before the deep sleep and after it, by
turns. Both end when their result is on disk; the archive has also read it back and verified it.
"""

import asyncio

from bench import trees
from bench.context import Context, Sessions, sessions, stopwatch
from bench.report import Baseline, Row, ratio
from bench.statistics import summarise

MOST = 2
SAVED = "buntime_archive_saved_total"


async def measure(context: Context) -> list[Row]:
    return [await _row(context, settled=True), await _row(context, settled=False)]


async def _row(context: Context, *, settled: bool) -> Row:
    sleeps: list[float] = []
    packs: list[float] = []
    for _ in range(context.scale.tree_rounds):
        async with sessions(context) as made:
            await made.create_many(context.scale.tree_sessions)
            await context.settled(len(made.ids))
            await trees.write(context.client, made.ids, context.scale.tree_files)
            if settled:
                await asyncio.to_thread(trees.settle_on_disk, context.server)
            await _sleep_all(context, made, sleeps, packs)
    measured, baseline = summarise(sleeps), summarise(packs)
    size = context.scale.tree_files * trees.FILE_BYTES / 1e6
    when = "" if settled else ", right after it was written"
    return Row(
        figure="deep-sleep",
        what=f"deep sleep of {size:.0f} MB in {context.scale.tree_files} files, archived{when}",
        measured=measured,
        baselines=(Baseline("tar and zstd -1, fsync", baseline),),
        checks=(ratio("p50", measured.p50, baseline.p50, MOST),) if settled else (),
        note="" if settled else f"{measured.p50 / baseline.p50:.2f}× of it",
    )


async def _sleep_all(context: Context, made: Sessions, sleeps: list[float], packs: list[float]) -> None:
    packed = context.server.scratch / "packed"
    for place, session in enumerate(made.ids):
        tree = trees.volume(context.server, session)
        if place % 2:
            packs.append(await stopwatch(asyncio.to_thread(trees.pack, tree, packed)))
        saved = await context.client.gauge(SAVED)
        sleeps.append(await stopwatch(context.client.sleep(session, "deep-sleep")))
        if await context.client.gauge(SAVED) != saved + 1:
            raise RuntimeError("the session slept, but was not archived")
        if not place % 2:
            packs.append(await stopwatch(asyncio.to_thread(trees.pack, tree, packed)))
