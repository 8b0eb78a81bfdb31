"""Creates through any host of a fleet, beside one host with SQLite on the same switch, one after the other."""

import asyncio
from itertools import cycle

from bench.context import Context, each, stopwatch
from bench.fleets import AT_ONCE, Place, Several, one_with_sqlite, several
from bench.report import Baseline, Check, Row
from bench.statistics import summarise

HOSTS = 3
MOST_MS = 3.0


async def measure(context: Context) -> list[Row]:
    scale, size = context.scale, context.scale.fleet_pool
    here, carried, alone = list[float](), list[float](), list[float]()
    async with several(context, HOSTS, size) as fleet, one_with_sqlite(context, fleet, size) as single:
        await _round(fleet, single, size, ([], [], []))  # warms up
        for _ in range(scale.fleet_rounds):
            await _round(fleet, single, size, (here, carried, alone))
    measured, baseline = summarise(here + carried), summarise(alone)
    parts = {"of the host that was asked": here, "of another host": carried}
    shown = "; ".join(f"{name}: {summarise(times).p50:.2f} ms ({len(times)})" for name, times in parts.items() if times)
    return [
        Row(
            figure="fleet-create",
            what=f"create through any of {HOSTS} hosts, PostgreSQL on the same machine",
            measured=measured,
            baselines=(Baseline("one host, SQLite", baseline),),
            checks=(Check("p50 more", measured.p50 - baseline.p50, MOST_MS, " ms"),),
            note=shown,
        )
    ]


async def _round(
    fleet: Several, single: Place, count: int, times: tuple[list[float], list[float], list[float]]
) -> None:
    """As many creates on each side as one pool has, by turns."""
    here, carried, alone = times
    for place in (*fleet.places, single):
        await place.filled()
    gates, made, theirs = cycle(fleet.places), list[str](), list[str]()
    asked = list[tuple[Place, float]]()
    for turn in range(count):

        async def ours() -> None:
            gate = next(gates)
            asked.append((gate, await stopwatch(_create(gate, made))))

        async def other() -> None:
            alone.append(await stopwatch(_create(single, theirs)))

        for side in (ours, other) if turn % 2 == 0 else (other, ours):
            await side()
    for session, (gate, spent) in zip(made, asked, strict=True):
        is_here = await asyncio.to_thread(fleet.owner, session) == gate.id
        (here if is_here else carried).append(spent)
    await each(made, fleet.clients[0].delete, AT_ONCE)
    await each(theirs, single.client.delete, AT_ONCE)


async def _create(place: Place, made: list[str]) -> None:
    made.append(await place.client.create())
