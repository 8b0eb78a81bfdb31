"""Many clients at the same instant. Each creates a session and makes its first execute."""

import asyncio

from bench import baselines
from bench.baselines import CODE
from bench.client import Refused
from bench.context import MS, Context, Sessions, sessions, stopwatch
from bench.report import Baseline, Check, Row, ratio
from bench.statistics import summarise


async def measure(context: Context) -> list[Row]:
    return [await _burst(context, count) for count in context.scale.bursts]


async def _burst(context: Context, count: int) -> Row:
    walls: list[float] = []
    singles: list[float] = []
    host: list[float] = []
    failures: list[str] = []
    for _ in range(context.scale.rounds):
        async with sessions(context) as made:
            # each client connects before the clock starts
            await asyncio.gather(*(context.client.healthz() for _ in range(count)))
            host += await asyncio.to_thread(baselines.timed, lambda: context.bun.batch(count), 1)
            tries = asyncio.gather(*(_one(context, made, failures) for _ in range(count)))
            walls.append(await stopwatch(tries))
            singles += tries.result()
    measured = summarise(walls)
    baseline = Baseline(f"{count} × bun -e at once", summarise([seconds * MS for seconds in host]))
    each = summarise(singles)
    succeeded = 100.0 * (1 - len(failures) / len(singles))
    return Row(
        figure="burst",
        what=f"{count} at once: create + first execute, wall",
        measured=measured,
        baselines=(baseline,),
        checks=(
            Check("succeed", succeeded, 100, " %", least=True),
            ratio("wall", measured.p50, baseline.measured.p50, 2.5),
        ),
        note=f"one of them: p50 {each.p50:.0f} ms, p99 {each.p99:.0f} ms" + "".join(f"; {f}" for f in failures[:1]),
    )


async def _one(context: Context, made: Sessions, failures: list[str]) -> float:
    """Returns the milliseconds. A refusal is recorded."""

    async def work() -> None:
        session = await context.client.create()
        made.ids.append(session)
        await context.client.execute(session, code=CODE)

    try:
        return await stopwatch(work())
    except Refused as refused:
        failures.append(str(refused))
        return 0.0
