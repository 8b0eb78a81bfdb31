"""Requests to the previews of many sessions by turns, compared with requests to a few."""

import asyncio
from collections.abc import Sequence

from bench import machine, wrk
from bench.context import Context, each, sessions
from bench.plain_nginx import plain_nginx
from bench.previews import Preview, Way, serve
from bench.report import Baseline, Row, ratio
from bench.statistics import summarise

LEAST = 0.7
FEW = 10
CONNECTIONS = 32
STARTS_AT_ONCE = 4
STEADY_SECONDS = 5  # of load before each measurement: connections and permissions of the last one have ended


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
        with plain_nginx(scratch / "plain-nginx", previews[0].direct, *previews) as plain:
            many, few, by_nginx = await asyncio.to_thread(_taken, context, previews, plain)
    measured, baseline, nginx = summarise(many), summarise(few), summarise(by_nginx)
    return [
        Row(
            figure="preview-many",
            what=f"requests a second of {len(previews)} previews by turns, {CONNECTIONS} connections",
            note=f"{used:.1f} MB for a session with its server",
            measured=measured,
            unit="/s",
            baselines=(
                Baseline(f"of {FEW} previews", baseline, "/s"),
                Baseline(f"of as many sessions by {plain.name} for each", nginx, "/s"),
            ),
            checks=(
                ratio("of as many by nginx", measured.p50, nginx.p50, LEAST, least=True),
                ratio(f"of {FEW} previews", measured.p50, baseline.p50, LEAST, least=True),
            ),
        )
    ]


def _taken(context: Context, previews: Sequence[Preview], plain: Way) -> tuple[list[float], list[float], list[float]]:
    """Measures all previews, a few of them, and all through the plain nginx."""
    scale, edge = context.scale, previews[0].edge
    hosts = [preview.edge.host for preview in previews]
    some = hosts[:: max(1, len(hosts) // FEW)][:FEW]
    taken: tuple[list[float], list[float], list[float]] = ([], [], [])
    kinds = list(zip(taken, (edge, edge, plain), (hosts, some, hosts), strict=True))
    for turn in range(scale.preview_rounds + 1):
        for into, way, asked in kinds if turn % 2 == 0 else reversed(kinds):
            wrk.load(context.server.scratch, way, STEADY_SECONDS, CONNECTIONS, asked)
            answered = wrk.load(context.server.scratch, way, scale.preview_seconds, CONNECTIONS, asked)
            if turn:  # the first turn only warms up
                into.append(answered)
    return taken
