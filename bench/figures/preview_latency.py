"""The time that the edge adds to a request, one at a time on a kept connection."""

import asyncio
from functools import partial

from bench.context import MS, Context, sessions
from bench.exchanges import by_turns, round_trips
from bench.previews import serve_unhindered
from bench.report import Baseline, Check, Row
from bench.statistics import Summary, summarise

MOST_MS, MOST_P99_MS = 0.3, 1.5


async def measure(context: Context) -> list[Row]:
    scale = context.scale
    async with sessions(context) as made:
        preview = await serve_unhindered(context, made)
        ways = (preview.edge, preview.direct)
        trips = partial(round_trips, count=scale.preview_trips)
        await asyncio.to_thread(by_turns, 1, ways, trips)  # warms up
        taken = await asyncio.to_thread(by_turns, scale.preview_rounds, ways, trips)
        asked = await asyncio.to_thread(round_trips, preview.edge, scale.preview_trips // 2, asked=True)
    measured, direct = (_summary(taken[way]) for way in ways)
    slow = summarise([seconds * MS for seconds in asked])
    baseline = (Baseline("directly to the session", direct),)
    return [
        Row(
            figure="preview-latency",
            what="a request to a preview",
            note=f"direct p99 {direct.p99:.3f} ms",
            measured=measured,
            baselines=baseline,
            checks=(
                Check("p50: more by", measured.p50 - direct.p50, MOST_MS, " ms"),
                Check("p99: more by", measured.p99 - direct.p99, MOST_P99_MS, " ms"),
            ),
        ),
        Row(
            figure="preview-latency",
            what="the same, if the edge asks the control plane each time",
            note=f"p50: more by {slow.p50 - direct.p50:.3f} ms",
            measured=slow,
            baselines=baseline,
        ),
    ]


def _summary(rounds: list[list[float]]) -> Summary:
    return summarise([seconds * MS for times in rounds for seconds in times])
