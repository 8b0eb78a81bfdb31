"""The first byte of a streamed run's output, compared with the whole response of a run that is not streamed."""

import time

from bench.baselines import CODE
from bench.context import MS, Context, each, sessions, stopwatch
from bench.pace import by_turns
from bench.report import Baseline, Check, Row
from bench.statistics import summarise

MOST_MS = 1.0
SLEEPS = f"{CODE}; await Bun.sleep(50)"
OUTPUT, RESULT = b'event: stdout\ndata: {"data":"1\\n"}', b"event: result"


async def measure(context: Context) -> list[Row]:
    scale, client = context.scale, context.client

    async def streamed(session: str) -> float:
        start, read, first = time.perf_counter(), b"", 0.0
        async with client.streamed(session, code=SLEEPS) as events:
            async for part in events.iter_any():
                read += part
                if not first and OUTPUT in read:
                    first = time.perf_counter()
        if not first or RESULT not in read:
            raise ValueError(f"a stream without output or result: {read[:300]!r}")
        return (first - start) * MS

    async def whole(session: str) -> float:
        return await stopwatch(client.execute(session, code=CODE))

    async with sessions(context) as made:
        await made.create_many(scale.execution_sessions)
        await each(made.ids, whole, 1)
        taken = await by_turns(scale.execution_turns, made.ids, {"streamed": streamed, "whole": whole})
    measured, baseline = summarise(taken["streamed"]), summarise(taken["whole"])
    return [
        Row(
            figure="first-byte",
            what="first byte of output of a streamed run, which then sleeps 50 ms",
            measured=measured,
            baselines=(Baseline("response of the run without the sleep, not streamed", baseline),),
            checks=(Check("p50: more by", measured.p50 - baseline.p50, MOST_MS, " ms"),),
        )
    ]
