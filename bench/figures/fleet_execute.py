"""Execute through the host that has the session, through another one, and on one host with SQLite, by turns."""

import asyncio
import secrets

from bench.context import Context, each, stopwatch
from bench.fleets import AT_ONCE, Place, one_with_sqlite, several
from bench.pace import PAUSE_SECONDS, by_turns
from bench.report import Baseline, Check, Row
from bench.statistics import Summary, summarise

HOSTS = 2
WRONG_MS, RIGHT_MS = 2.0, 0.3
COMMAND = "true"


async def measure(context: Context) -> list[Row]:
    scale, size = context.scale, context.scale.fleet_pool
    count = min(scale.fleet_sessions, size)
    async with several(context, HOSTS, size) as fleet, one_with_sqlite(context, fleet, size) as single:
        right, wrong = fleet.places
        ours, theirs = await fleet.create_on(right, count), list[str]()

        async def create(_: int) -> None:
            theirs.append(await single.client.create())

        await each(range(count), create, AT_ONCE)

        async def execute(place: Place, session: str, headers: dict[str, str]) -> float:
            return await stopwatch(place.client.execute(session, headers=headers, command=COMMAND))

        def keyed() -> dict[str, str]:
            return {"Idempotency-Key": secrets.token_hex(16)}

        works = {
            "alone": lambda pair: execute(single, pair[1], {}),
            "right": lambda pair: execute(right, pair[0], {}),
            "wrong": lambda pair: execute(wrong, pair[0], {}),
            "alone, keyed": lambda pair: execute(single, pair[1], keyed()),
            "right, keyed": lambda pair: execute(right, pair[0], keyed()),
        }
        pairs = list(zip(ours, theirs, strict=True))
        await by_turns(1, pairs, works)  # warms up
        taken = await by_turns(scale.fleet_turns, pairs, works)
        await asyncio.gather(*(right.client.delete(session) for session in ours))
    found = {name: summarise(times) for name, times in taken.items()}
    paused = f"({count} sessions, a pause of {PAUSE_SECONDS * 1000:.0f} ms before each)"
    return [
        _row(f"execute of `{COMMAND}` through the wrong host {paused}", found["wrong"], found["alone"], WRONG_MS),
        _row("the same through the right host", found["right"], found["alone"], RIGHT_MS),
        _row("the same with an Idempotency-Key", found["right, keyed"], found["alone, keyed"], None),
    ]


def _row(what: str, measured: Summary, baseline: Summary, most: float | None) -> Row:
    more = measured.p50 - baseline.p50
    return Row(
        figure="fleet-execute",
        what=what,
        measured=measured,
        baselines=(Baseline("one host, SQLite", baseline),),
        checks=() if most is None else (Check("p50 more", more, most, " ms"),),
        note="" if most is not None else f"p50 more: {more:.2f} ms",
    )
