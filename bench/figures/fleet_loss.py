"""A host loses its power. When does another one answer for what slept on it, and how long was its lease?"""

import asyncio
import time
from dataclasses import dataclass, field

from bench.context import MS, Context, stopwatch
from bench.fleets import Place, Several, answered, deep_sleep, several
from bench.report import Baseline, Check, Row
from bench.statistics import summarise
from buntime.fleet.budget import BUDGET

HOSTS = 2
MOST_MS = 12_000.0
PATIENCE_SECONDS = 60.0
LOOK_SECONDS = 0.02
FILE_MB = 1


@dataclass(slots=True)
class Times:
    """Milliseconds."""

    first: list[float] = field(default_factory=list)  # from the loss to the first answer
    lease: list[float] = field(default_factory=list)  # of that, until another host has taken over
    wakes: list[float] = field(default_factory=list)  # of the others that slept on the lost host, after that


async def measure(context: Context) -> list[Row]:
    scale, times = context.scale, Times()
    async with several(context, HOSTS, scale.fleet_pool) as fleet:
        for turn in range(scale.lost_hosts):
            lost, left = fleet.places if turn % 2 else fleet.places[::-1]
            await _lose(fleet, lost, left, scale.lost_sleepers, times)
            if turn + 1 < scale.lost_hosts:
                await asyncio.to_thread(lost.host.start)
                lost.client.reconnect()
                await fleet.filled()
    measured, lease, wakes = summarise(times.first), summarise(times.lease), summarise(times.wakes)
    bare = BUDGET.lease * MS + wakes.p50
    return [
        Row(
            figure="fleet-loss",
            what="a sleeping session of a host without power: from the loss to the first answer elsewhere",
            measured=measured,
            baselines=(Baseline("wake of another one from the archive, later", wakes),),
            checks=(Check("p50", measured.p50, MOST_MS, " ms"),),
            note=f"until another host had taken over: {lease.p50:,.0f} ms (at most {lease.most:,.0f}); "
            f"a lease of {BUDGET.lease:.0f} s and such a wake: {bare:,.0f} ms",
        )
    ]


async def _lose(fleet: Several, lost: Place, left: Place, count: int, times: Times) -> None:
    sessions = await fleet.create_on(lost, count)
    for session in sessions:
        await lost.client.execute(session, command=f"head -c {FILE_MB}M /dev/urandom > file")
        await deep_sleep(fleet, lost.client, session)
    first, *others = sessions
    began = time.perf_counter()
    taken = asyncio.create_task(_taken_over(fleet, lost.id))
    await asyncio.to_thread(lost.host.cut_power)
    await answered(left.client, first, PATIENCE_SECONDS)
    times.first.append((time.perf_counter() - began) * MS)
    times.lease.append((await taken - began) * MS)
    for session in others:
        times.wakes.append(await stopwatch(answered(left.client, session, PATIENCE_SECONDS)))
    for session in sessions:
        await left.client.delete(session)


async def _taken_over(fleet: Several, host: str) -> float:
    """When another host had taken over, by `time.perf_counter`."""
    asked = f"SELECT taken_over FROM hosts WHERE id = '{host}'"
    while await asyncio.to_thread(fleet.fleet.database.execute, asked) != [(True,)]:  # noqa: ASYNC110 - another host sets it
        await asyncio.sleep(LOOK_SECONDS)
    return time.perf_counter()
