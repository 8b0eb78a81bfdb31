"""Large bodies through a preview, compared with direct transfer; and the memory that they take on the way."""

import asyncio
from functools import partial

from bench import machine
from bench.context import Context, sessions
from bench.exchanges import by_turns, download, upload
from bench.plain_nginx import plain_nginx
from bench.previews import Way, serve_unhindered
from bench.report import Baseline, Check, Row, ratio
from bench.statistics import summarise

LEAST = 0.7
FLAT_MB = 10.0  # a tenth of one body


async def measure(context: Context) -> list[Row]:
    async with sessions(context) as made:
        preview = await serve_unhindered(context, made)
        with plain_nginx(context.server.scratch / "plain-nginx", preview.direct) as plain:
            ways = (preview.edge, preview.direct, plain)
            return [await asyncio.to_thread(_row, context, ways, work) for work in ("download", "upload")]


def _row(context: Context, ways: tuple[Way, Way, Way], work: str) -> Row:
    size = context.scale.preview_mb
    take = partial(download if work == "download" else upload, size=size)
    by_turns(1, ways, take)  # warms up
    processes = machine.edge_processes(context.server.config)
    machine.forget_peaks(processes)
    before = machine.memory_mb(processes, "VmRSS")
    taken = by_turns(context.scale.preview_rounds, ways, take)
    peak = machine.memory_mb(processes, "VmHWM")
    measured, baseline, by_nginx = (summarise([size / seconds for seconds in taken[way]]) for way in ways)
    return Row(
        figure="preview-bodies",
        what=f"{work} of {size} MB through a preview",
        note=f"server and nginx: {before:.0f} MB before, {peak:.0f} at most",
        measured=measured,
        unit="MB/s",
        baselines=(Baseline("directly to the session", baseline, "MB/s"), Baseline(ways[2].name, by_nginx, "MB/s")),
        checks=(
            ratio("p50", measured.p50, baseline.p50, LEAST, least=True),
            Check("memory: more by", peak - before, FLAT_MB, " MB"),
        ),
    )
