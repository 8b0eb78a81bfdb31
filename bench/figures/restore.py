"""The first execute after deep sleep, restored from the archive, compared with `zstd -d` and `tar` for the same tree.

The baseline extracts onto the volumes' file system, with the same limit, and does not wait until the files are on disk.
A second baseline waits for that, as a restore does. What both read is in the page cache.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from bench import archived, trees
from bench.baselines import CODE
from bench.context import Context, Sessions, beside, sessions, stopwatch
from bench.report import Baseline, Row, ratio
from bench.server import NOTHING
from bench.statistics import summarise
from tests.contracts.seaweed import BUCKET, seaweed

MOST = 2.5
SETTINGS = {"BUNTIME_CACHE_GB": "0", "BUNTIME_TICK_MS": "200"}


async def measure_directory(context: Context) -> list[Row]:
    return [await _restored(context, "restore", "from a directory", NOTHING)]


async def measure_s3(context: Context) -> list[Row]:
    home = context.server.scratch / "seaweed"
    home.mkdir()
    with seaweed(home) as store:
        environ = {**store.environ, "BUNTIME_ARCHIVE": f"s3://{BUCKET}/bench"}
        return [await _restored(context, "restore-s3", "from SeaweedFS over S3", environ)]


async def _restored(context: Context, figure: str, where: str, environ: Mapping[str, str]) -> Row:
    restores: list[float] = []
    unpacks: list[float] = []
    durable: list[float] = []
    async with beside(context, 0, {**SETTINGS, **environ}) as other, sessions(other) as made:
        await made.create_many(context.scale.tree_sessions)
        await trees.write(other.client, made.ids, context.scale.tree_files)
        packed = await asyncio.to_thread(_packed, other, made)
        for _ in range(context.scale.tree_rounds):
            await _sleep_all(other, made)
            with trees.places_to_unpack(other.server, len(made.ids)) as places:
                for session, place in zip(made.ids, places, strict=True):
                    restores.append(await stopwatch(other.client.execute(session, code=CODE)))
                    plain, with_sync = await asyncio.to_thread(trees.timed_unpack, other.server, packed[session], place)
                    unpacks.append(plain)
                    durable.append(with_sync)
    measured, baseline = summarise(restores), summarise(unpacks)
    size = context.scale.tree_files * trees.FILE_BYTES / 1e6
    return Row(
        figure=figure,
        what=f"first execute after deep sleep, {size:.0f} MB in {context.scale.tree_files} files {where}",
        measured=measured,
        baselines=(Baseline("zstd -d and tar -x", baseline), Baseline("the same, then sync", summarise(durable))),
        checks=(ratio("p50", measured.p50, baseline.p50, MOST),),
    )


def _packed(context: Context, made: Sessions) -> Mapping[str, Path]:
    trees.settle_on_disk(context.server)
    packed = {session: context.server.scratch / session for session in made.ids}
    for session, target in packed.items():
        trees.pack(trees.volume(context.server, session), target)
    return packed


async def _sleep_all(context: Context, made: Sessions) -> None:
    """Puts all sessions to sleep and waits until none has a volume on this host."""
    for session in made.ids:
        await context.client.sleep(session, "deep-sleep")
    await archived.evicted(context)
