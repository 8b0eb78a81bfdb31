"""Requests for many sessions by turns, each with its preview, beside requests for a few of them."""

import asyncio

from bench import machine, wrk
from bench.context import Context, each, sessions
from bench.previews import Preview, serve
from bench.report import Baseline, Row, ratio
from bench.statistics import summarise

LEAST = 0.7
FEW = 10
CONNECTIONS = 32
STARTS_AT_ONCE = 4


async def measure(context: Context) -> list[Row]:
    scale, scratch = context.scale, context.server.scratch
    if reason := wrk.reason_against():
        return [Row(figure="preview-many", what="previews by turns", skipped=reason)]
    previews: list[Preview] = []
    async with sessions(context) as made:

        async def start(_: int) -> None:
            previews.append(await serve(context, made))
            if len(previews) % 100 == 0:
                context.say(f"  {len(previews)} previews")

        before = machine.available_mb()
        await each(range(scale.preview_sessions), start, STARTS_AT_ONCE)
        used = (before - machine.available_mb()) / len(previews)
        way, hosts = previews[0].edge, [preview.edge.host for preview in previews]
        taken: dict[int, list[float]] = {len(hosts): [], FEW: []}
        for turn in range(scale.preview_rounds + 1):
            for count in (len(hosts), FEW) if turn % 2 == 0 else (FEW, len(hosts)):
                asked = hosts[:: len(hosts) // count][:count]
                answered = await asyncio.to_thread(wrk.load, scratch, way, scale.preview_seconds, CONNECTIONS, asked)
                if turn:  # the first is to warm all up
                    taken[count].append(answered)
    measured, baseline = summarise(taken[len(hosts)]), summarise(taken[FEW])
    return [
        Row(
            figure="preview-many",
            what=f"requests a second of {len(hosts)} previews by turns, {CONNECTIONS} connections",
            note=f"{used:.1f} MB for a session with its server",
            measured=measured,
            unit="/s",
            baselines=(Baseline(f"of {FEW} previews", baseline, "/s"),),
            checks=(ratio("p50", measured.p50, baseline.p50, LEAST, least=True),),
        )
    ]
