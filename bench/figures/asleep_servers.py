"""Many suspended sessions with a web server each, paged out. A request to one of them wakes it."""

import asyncio
import random
from itertools import cycle

from bench import machine
from bench.context import MS, Context, Sessions, each, sessions
from bench.exchanges import first_byte
from bench.figures.memory import steady
from bench.paging import paged_out
from bench.previews import Preview, serve
from bench.report import Baseline, Check, Row
from bench.retrying import with_patience
from bench.statistics import summarise
from bench.usage import has_room
from buntime.sandboxes.kernel.host import total_memory

MOST_P50_MS, MOST_P99_MS = 20.0, 100.0
MOST_WOKEN = 1000
STEP, AT_ONCE = 40, 4
QUIET_SECONDS = 2.0  # then the edge remembers no permission and holds no session


async def measure(context: Context) -> list[Row]:
    scale = context.scale
    swap = total_memory() >> 20  # as scripts/zram makes it
    with machine.swap(context.server.scratch / "swap", swap) as refused:
        async with sessions(context) as made:
            active = [await serve(context, made) for _ in range(scale.active_servers)]
            await context.settled(len(active))
            before = await steady(machine.available_mb)
            asleep = await _fall_asleep(context, made, scale.asleep_servers)
            out = 0 if refused else await paged_out(context, [one.session for one in asleep])
            await context.settled(len(made.ids))
            each_mb = (before - await steady(machine.available_mb)) / len(asleep)
            held = await asyncio.to_thread(_held, context, asleep) / len(asleep)
            wakes, others = await _visit(asleep, active)
    measured, baseline = summarise(wakes), summarise(others)
    return [
        Row(
            figure="asleep-servers",
            what=f"first byte from one of {len(asleep)} suspended sessions with a web server",
            measured=measured,
            baselines=(Baseline("from an active one", baseline),),
            checks=(
                Check("p50: more by", measured.p50 - baseline.p50, MOST_P50_MS, " ms"),
                Check("p99: more by", measured.p99 - baseline.p99, MOST_P99_MS, " ms"),
            ),
            note=f"p99 active {baseline.p99:.1f} ms; {out} were paged out; one takes {each_mb:.2f} MB of "
            f"MemAvailable, {held:.2f} MB of its cgroups without files and of zram"
            + (f"; no swap: {refused}" if refused else "")
            + ("" if len(asleep) == scale.asleep_servers else f"; memory was short for {scale.asleep_servers}"),
        )
    ]


async def _fall_asleep(context: Context, made: Sessions, count: int) -> list[Preview]:
    """Suspends each as soon as a few have been made, so that few are active at a time."""
    asleep = list[Preview]()
    while len(asleep) < count and has_room():
        step = list[Preview]()

        async def start(_: int, step: list[Preview] = step) -> None:
            preview, _ = await with_patience(lambda: serve(context, made))
            step.append(preview)

        await each(range(min(STEP, count - len(asleep))), start, AT_ONCE)
        await each(step, lambda one: context.client.sleep(one.session, "idle"), AT_ONCE)
        asleep += step
        context.say(f"  {len(asleep)} suspended servers, {machine.available_mb():.0f} MB available")
    return asleep


def _held(context: Context, asleep: list[Preview]) -> float:
    """Returns the MB that they take as the kernel charges them, and compressed."""
    config = context.server.config
    serving = machine.serving(config)
    charged = (machine.without_files_mb(config.instance, serving[one.session]) for one in asleep)
    return sum(charged) + machine.zram_mb()


async def _visit(asleep: list[Preview], active: list[Preview]) -> tuple[list[float], list[float]]:
    """Asks for a page of one that is asleep and of an active one by turns."""
    wakes, others = list[float](), list[float]()
    woken = random.sample(asleep, min(MOST_WOKEN, len(asleep)))
    for sleeper, other in zip(woken, cycle(active), strict=False):
        await asyncio.sleep(QUIET_SECONDS / len(active))
        for one, times in (sleeper, wakes), (other, others):
            times.append(await asyncio.to_thread(first_byte, one.edge) * MS)
    return wakes, others
