"""Requests a second of a preview through the host that has the session, and through another one, by turns.

Beside them, the same through one plain nginx and through two, on the same hosts: what any such hop costs here.
"""

import asyncio
from functools import partial
from urllib.parse import urlsplit

from bench import wrk
from bench.context import Context
from bench.exchanges import by_turns
from bench.fleets import in_thread, several
from bench.plain_hops import plain_hops
from bench.previews import CORES, PROGRAM, START, WAIT, Way, address_of
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
        address = await address_of(owner.client, session)
        async with in_thread(plain_hops(context.server.scratch, owner.host, other.host, address)) as (one, two):
            ways = (right, wrong, one, two)
            await asyncio.to_thread(by_turns, 1, ways, load)  # warms up
            taken = await asyncio.to_thread(by_turns, scale.preview_rounds, ways, load)
        await owner.client.delete(session)
    measured, baseline = summarise(taken[wrong]), summarise(taken[right])
    hops, hop = summarise(taken[two]), summarise(taken[one])
    return [
        Row(
            figure="fleet-preview",
            what=what,
            measured=measured,
            unit="/s",
            baselines=(Baseline("through the right host", baseline, "/s"),),
            checks=(ratio("p50", measured.p50, baseline.p50, LEAST, least=True),),
        ),
        Row(
            figure="fleet-preview",
            what="the same by nginx alone: two that only proxy, with mutual TLS between them",
            measured=hops,
            unit="/s",
            baselines=(Baseline("through the nearer one", hop, "/s"),),
            note=f"p50 {hops.p50 / hop.p50:.2f}× of one: what any hop by nginx and TLS leaves here",
        ),
    ]
