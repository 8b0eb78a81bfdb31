"""WebSocket messages that a session echoes, through a preview and directly."""

from collections.abc import Sequence

from bench.context import Context, sessions
from bench.exchanges import TEXT, echoes
from bench.plain_nginx import plain_nginx
from bench.previews import Way, serve_unhindered
from bench.report import Baseline, Row, ratio
from bench.statistics import summarise

LEAST = 0.7
CONNECTIONS = 16


async def measure(context: Context) -> list[Row]:
    async with sessions(context) as made:
        preview = await serve_unhindered(context, made)
        with plain_nginx(context.server.scratch / "plain-nginx", preview.direct) as plain:
            ways = (preview.edge, preview.direct, plain)
            taken = await _taken(context, ways)
    measured, baseline, by_nginx = (summarise(taken[way]) for way in ways)
    return [
        Row(
            figure="preview-websocket",
            what=f"WebSocket echoes a second of {len(TEXT)} bytes, {CONNECTIONS} connections",
            measured=measured,
            unit="/s",
            baselines=(Baseline("directly to the session", baseline, "/s"), Baseline(plain.name, by_nginx, "/s")),
            checks=(ratio("p50", measured.p50, baseline.p50, LEAST, least=True),),
        )
    ]


async def _taken(context: Context, ways: Sequence[Way]) -> dict[Way, list[float]]:
    seconds = context.scale.preview_seconds
    taken: dict[Way, list[float]] = {way: [] for way in ways}
    for way in ways:
        await echoes(way, seconds, CONNECTIONS)  # warms up
    for turn in range(context.scale.preview_rounds):
        for way in ways if turn % 2 == 0 else reversed(ways):
            taken[way].append(await echoes(way, seconds, CONNECTIONS))
    return taken
