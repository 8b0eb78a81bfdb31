"""The first byte of a sleeping session's preview, compared with an active one's.

Each request has its own connection, and is sent when the edge has forgotten the one before.
"""

import asyncio

from bench.context import MS, Context, each, sessions
from bench.exchanges import first_byte
from bench.previews import START, Preview, serve
from bench.report import Baseline, Check, Row
from bench.statistics import summarise

MOST_MS = {"idle": 15.0, "deep-sleep": 400.0}
QUIET_SECONDS = 1.5  # then the edge remembers no permission, holds no session, and all CPU quotas are full
SLEEPS_AT_ONCE = 4


async def measure(context: Context) -> list[Row]:
    async with sessions(context) as made:
        previews: list[Preview] = []
        for _ in range(2 * context.scale.preview_sleepers):
            previews.append(await serve(context, made, onWake=START))
        await context.settled(len(previews))
        return [await _row(context, previews, depth) for depth in MOST_MS]


async def _row(context: Context, previews: list[Preview], depth: str) -> Row:
    times: dict[bool, list[float]] = {False: [], True: []}
    for turn in range(2 * context.scale.rounds):
        await asyncio.sleep(QUIET_SECONDS)
        await each(previews[turn % 2 :: 2], lambda one: context.client.sleep(one.session, depth), SLEEPS_AT_ONCE)
        await asyncio.sleep(QUIET_SECONDS)
        for place, preview in enumerate(previews):
            times[place % 2 == turn % 2].append(await asyncio.to_thread(first_byte, preview.edge) * MS)
    measured, active = summarise(times[True]), summarise(times[False])
    name = "an idle session" if depth == "idle" else "a session in deep sleep that starts its server on waking"
    return Row(
        figure="preview-wake",
        what=f"first byte from {name}",
        measured=measured,
        baselines=(Baseline("from an active one", active),),
        checks=(Check("p50: more by", measured.p50 - active.p50, MOST_MS[depth], " ms"),),
    )
