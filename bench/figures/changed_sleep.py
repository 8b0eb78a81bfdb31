"""Deep sleep after a small change in a large volume, beside the same change in an empty one, and the bytes of it.

Both sessions slept before, so the large one has a full object in the archive. An empty volume is always saved whole.
"""

import asyncio
from collections.abc import Sequence

from bench import archived, trees
from bench.archived import CHANGE, CHANGED_MB, Sleep
from bench.context import Context, sessions
from bench.report import Baseline, Row, ratio
from bench.statistics import summarise

MOST, MOST_BYTES = 2, 0.1


async def measure(context: Context) -> list[Row]:
    client, files = context.client, context.scale.archived_files
    large, empty = list[Sleep](), list[Sleep]()
    async with sessions(context) as made:
        await made.create_many(2, at_once=1, resourceLimits=archived.LIMITS)
        filled, bare = made.ids
        await trees.write(client, [filled], files)
        await asyncio.to_thread(trees.settle_on_disk, context.server)
        first = await archived.deep_sleep(client, filled)
        await archived.deep_sleep(client, bare)
        for _ in range(context.scale.archived_sleeps):
            for session, sleeps in ((filled, large), (bare, empty)):
                await client.execute(session, command=CHANGE)
                await context.pool_filled()
                sleeps.append(await archived.deep_sleep(client, session))
    volume = f"a volume of {files * trees.FILE_BYTES / 1e6:.0f} MB in {files} files"
    return [
        _time(
            f"deep sleep after a change of {CHANGED_MB} MB in {volume}, until the answer",
            [sleep.answered for sleep in large],
            [sleep.answered for sleep in empty],
            f"the first sleep, of all: {first.answered:.0f} ms",
        ),
        _time(
            "the same, until it is archived",
            [sleep.archived for sleep in large],
            [sleep.archived for sleep in empty],
            f"the first sleep, of all: {first.archived:.0f} ms",
        ),
        _bytes(f"bytes archived by {len(large)} sleeps, {CHANGED_MB} MB changed before each, {volume}", first, large),
    ]


def _time(what: str, large: Sequence[float], empty: Sequence[float], note: str) -> Row:
    measured, baseline = summarise(large), summarise(empty)
    return Row(
        figure="changed-sleep",
        what=what,
        measured=measured,
        baselines=(Baseline("the same change in an empty volume", baseline),),
        checks=(ratio("p50", measured.p50, baseline.p50, MOST),),
        note=f"{note}; the longest of these: {measured.most:.0f} ms",
    )


def _bytes(what: str, first: Sleep, sleeps: Sequence[Sleep]) -> Row:
    measured = summarise([sum(sleep.size for sleep in sleeps) / 1e6])
    baseline = summarise([len(sleeps) * first.size / 1e6])
    return Row(
        figure="changed-sleep",
        what=what,
        measured=measured,
        unit="MB",
        baselines=(Baseline(f"{len(sleeps)} × the first object", baseline, "MB"),),
        checks=(ratio("bytes", measured.p50, baseline.p50, MOST_BYTES),),
        note=f"full objects among them: {sum(sleep.full for sleep in sleeps)}",
    )
