"""Requests a second through a preview, compared with an nginx with one fixed upstream."""

import asyncio
from functools import partial

from bench import wrk
from bench.context import Context, sessions
from bench.exchanges import by_turns
from bench.plain_nginx import plain_nginx
from bench.previews import serve_unhindered
from bench.report import Baseline, Row, ratio
from bench.statistics import summarise

LEAST = 0.7
CONNECTIONS = 32


async def measure(context: Context) -> list[Row]:
    what = f"requests a second of a preview, {CONNECTIONS} connections"
    if reason := wrk.reason_against():
        return [Row(figure="preview-requests", what=what, skipped=reason)]
    scale, scratch = context.scale, context.server.scratch
    async with sessions(context) as made:
        preview = await serve_unhindered(context, made)
        with plain_nginx(scratch / "plain-nginx", preview.direct) as plain:
            ways = (preview.edge, plain, preview.direct)
            load = partial(wrk.load, scratch, seconds=scale.preview_seconds, connections=CONNECTIONS)
            await asyncio.to_thread(by_turns, 1, ways, load)  # warms up
            taken = await asyncio.to_thread(by_turns, scale.preview_rounds, ways, load)
    measured, baseline, direct = (summarise(taken[way]) for way in ways)
    return [
        Row(
            figure="preview-requests",
            what=what,
            measured=measured,
            unit="/s",
            baselines=(Baseline(plain.name, baseline, "/s"), Baseline("directly to the session", direct, "/s")),
            checks=(ratio("p50", measured.p50, baseline.p50, LEAST, least=True),),
        )
    ]
