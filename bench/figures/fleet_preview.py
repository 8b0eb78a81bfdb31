"""Requests a second of a preview through the host that has the session, and through another one, by turns."""

import asyncio
from functools import partial
from urllib.parse import urlsplit

from bench import wrk
from bench.context import Context
from bench.exchanges import by_turns
from bench.fleets import several
from bench.previews import CORES, PROGRAM, START, WAIT, Way
from bench.report import Baseline, Row, ratio
from bench.statistics import summarise
from tests.fleet.lab.places import PORT as EDGE

HOSTS = 2
LEAST = 0.6
CONNECTIONS = 32


async def measure(context: Context) -> list[Row]:
    what = f"requests a second of a preview through the wrong host, {CONNECTIONS} connections"
    if reason := wrk.reason_against():
        return [Row(figure="fleet-preview", what=what, skipped=reason)]
    scale = context.scale
    async with several(context, HOSTS, scale.fleet_pool) as fleet:
        owner, other = fleet.places
        (session,) = await fleet.create_on(owner, 1, resourceLimits={"cpu": CORES})
        files = [{"path": "server.ts", "content": PROGRAM}]
        command = f"setsid {START} >/dev/null 2>&1 </dev/null & {WAIT}"
        await owner.client.execute(session, command=command, files=files, timeout=30)
        asked = f"/sessions/{session}"
        host = urlsplit(str((await owner.client.read(asked))["previewUrl"])).netloc
        right = Way("the right host", owner.host.address, EDGE, host)
        wrong = Way("the wrong host", other.host.address, EDGE, host)
        load = partial(wrk.load, context.server.scratch, seconds=scale.preview_seconds, connections=CONNECTIONS)
        await asyncio.to_thread(by_turns, 1, (right, wrong), load)  # warms up
        taken = await asyncio.to_thread(by_turns, scale.preview_rounds, (right, wrong), load)
        await owner.client.delete(session)
    measured, baseline = summarise(taken[wrong]), summarise(taken[right])
    return [
        Row(
            figure="fleet-preview",
            what=what,
            measured=measured,
            unit="/s",
            baselines=(Baseline("through the right host", baseline, "/s"),),
            checks=(ratio("p50", measured.p50, baseline.p50, LEAST, least=True),),
        )
    ]
