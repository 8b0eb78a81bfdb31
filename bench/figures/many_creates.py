"""A thousand creates as fast as one client can, compared with what the pool makes when nobody asks."""

import asyncio
import time
from dataclasses import dataclass, field

from bench.client import Refused
from bench.context import Context, sessions, stopwatch
from bench.report import Baseline, Check, Row
from bench.retrying import with_patience
from bench.statistics import Summary, summarise
from bench.usage import has_room

LOOK_SECONDS = 0.1


@dataclass(slots=True)
class Creates:
    seconds: float = 0.0
    times: list[float] = field(default_factory=list)  # ms until the session was there, with all waits
    refusals: int = 0  # 503s, each followed by another try
    failures: list[str] = field(default_factory=list)


async def measure(context: Context) -> list[Row]:
    paces = [await _refill(context) for _ in range(context.scale.rounds)]
    alone = summarise(paces)
    burst = context.scale.create_burst
    return [
        _row("one after another", await _creates(context, 1), alone),
        _row(f"{burst} at a time", await _creates(context, burst), alone),
    ]


async def _refill(context: Context) -> float:
    """Returns how many sandboxes the pool makes a second, from when all are taken until it is full."""
    client, size = context.client, context.server.pool_size
    async with sessions(context) as made:
        await made.create_many(size, at_once=size)
        began, parked = time.monotonic(), await client.gauge("buntime_pool_parked")
        while await client.gauge("buntime_pool_parked") < size:  # noqa: ASYNC110 - the server's
            await asyncio.sleep(LOOK_SECONDS)
        return (size - parked) / (time.monotonic() - began)


async def _creates(context: Context, at_once: int) -> Creates:
    """Each next burst begins when all of the last have their session."""
    done = Creates()
    async with sessions(context) as made:

        async def one() -> None:
            session, refusals = await with_patience(context.client.create)
            made.ids.append(session)
            done.refusals += refusals

        async def timed() -> None:
            try:
                done.times.append(await stopwatch(one()))
            except Refused as refused:
                done.failures.append(str(refused))

        began, left = time.monotonic(), context.scale.many_creates
        while left > 0 and has_room():
            step = min(at_once, left)
            await asyncio.gather(*(timed() for _ in range(step)))
            left -= step
        done.seconds = time.monotonic() - began
    if left > 0:
        done.failures.append(f"memory was short before {left} of them")
    return done


def _row(how: str, done: Creates, alone: Summary) -> Row:
    count = len(done.times) + len(done.failures)
    one = summarise(done.times)
    return Row(
        figure="many-creates",
        what=f"creates a second, {count} {how}",
        measured=summarise([len(done.times) / done.seconds]),
        unit="/s",
        baselines=(Baseline("the pool alone", alone, "/s"),),
        checks=(Check("succeed", 100 * len(done.times) / count, 100, " %", least=True),),
        note=f"a create, with its waits: p50 {one.p50:.0f} ms, p99 {one.p99:.0f} ms; {done.refusals} refused for now"
        + "".join(f"; {reason}" for reason in done.failures[:1]),
    )
