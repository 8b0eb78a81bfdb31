"""Thousands of live sessions on one host. Each is used once. A fifth is active, the others are suspended and paged out.

A suspended session is paged out by the server a minute later. Where memory is short, the figure waits for that, and
stops if it does not help.
"""

import asyncio
import time
import uuid
from collections.abc import Awaitable
from dataclasses import dataclass, field

from bench import busy, machine
from bench.baselines import CODE
from bench.client import Refused
from bench.context import Context, NotSettled, Sessions, each, sessions, stopwatch
from bench.figures.memory import both, steady
from bench.paging import paged_out
from bench.report import Baseline, Check, Row, ratio
from bench.retrying import LATE, with_patience
from bench.statistics import summarise
from bench.usage import LEAST_MB, has_room, swap_mb
from buntime.sandboxes.kernel.host import total_memory
from buntime.sandboxes.kernel.reclaim import AFTER

MOST = 2
ACTIVE_SHARE = 5  # one of so many is active
AT_ONCE = 4
REST_SECONDS = 5.0  # in which the server's own work is measured
SWAP_GROWS_MB = 1.0  # in a second: then page-outs go on
NUMBERS = {"CPU": "process_cpu_seconds_total", "memory": "process_resident_memory_bytes"}


@dataclass(slots=True)
class Times:
    creates: list[float] = field(default_factory=list)
    executes: list[float] = field(default_factory=list)
    bun: list[float] = field(default_factory=list)  # on the host, just before
    busy: str = ""  # what used the processors


async def measure(context: Context) -> list[Row]:
    scale, server = context.scale, context.server
    swap = total_memory() >> 20  # as scripts/zram makes it
    with machine.swap(server.scratch / "swap", swap) as refused:
        async with sessions(context) as made:
            before, swapped, idle = await both(server.config.instance), swap_mb(), await _own_work(context)
            filling = Filling(context, made)
            first = await filling.sample()
            await filling.fill(scale.many_live - scale.live_sample)
            await filling.make_room_for(scale.live_sample)
            began = time.monotonic()
            out = await paged_out(context, filling.suspended)
            waited = time.monotonic() - began
            if filling.stopped:
                await filling.give_up(scale.live_sample)
            last = await filling.sample()
            count = len(made.ids)
            await filling.settle(context.settled(count))
            after = await steady(machine.available_mb)
            resting, zram, swapped = await _own_work(context), machine.zram_mb(), swap_mb() - swapped
    note = (
        f"bun -e on the host {summarise(first.bun).p50:.1f} ms then, {summarise(last.bun).p50:.1f} ms now; "
        f"of a core, then: {first.busy}; now: {last.busy}"
    )
    suspended = len(filling.suspended)
    reasons = [*filling.late, filling.stopped or "all were reached"]
    return [
        _compared("create", last.creates, first.creates, count, note),
        _compared("first execute", last.executes, first.executes, count, note),
        Row(
            figure="many-live",
            what=f"live sessions, of which {count - suspended} are active and {suspended} suspended",
            checks=(Check("reached", count, scale.many_live, "", least=True),),
            note=f"{'; '.join(reasons)}; filled in {filling.seconds:.0f} s; creates were asked for again "
            f"{filling.refusals} times; {out} of {suspended} "
            f"paged out, the last {waited:.0f} s later; "
            f"one takes {(before[0] - after) / count:.2f} MB of MemAvailable; "
            + (f"no swap: {refused}" if refused else f"swap {swapped:.0f} MB, in zram {zram:.0f} MB"),
        ),
        Row(
            figure="many-live",
            what="the pool and the server itself",
            note=f"{server.pool_size} parked sandboxes {before[1]:.0f} MB by cgroups; server at rest: {idle} with the "
            f"pool alone, {resting} with {count} sessions",
        ),
    ]


class Filling:
    """Creates sessions, uses each once, and suspends the oldest of those that are active."""

    def __init__(self, context: Context, made: Sessions) -> None:
        self._context = context
        self._made = made
        self._most_active = max(1, context.scale.many_live // ACTIVE_SHARE)
        self._began = time.monotonic()
        self.seconds = 0.0
        self.stopped = ""  # why
        self.late: list[str] = []  # what was not there in time
        self.refusals = 0  # creates that were asked for again: 503, or late
        self.suspended: list[str] = []

    async def sample(self) -> Times:
        """Creates and uses as many as the pool holds, one at a time, from a full pool."""
        times = Times()
        await self.make_room_for(self._context.scale.live_sample)
        await self.settle(self._context.pool_filled())
        times.bun = await self._context.bun_runs()
        before = busy.look()
        for _ in range(self._context.scale.live_sample):
            times.creates.append(await self._made.create())
            session = self._made.ids[-1]
            times.executes.append(await stopwatch(self._context.client.execute(session, code=CODE)))
        times.busy = busy.describe(before, busy.look())
        return times

    async def settle(self, settled: Awaitable[None]) -> None:
        """Waits for it. If it takes too long, the figures are those of a server that has not settled, and say so."""
        try:
            await settled
        except NotSettled as late:
            self.late.append(f"{late} with {len(self._made.ids)}")

    async def fill(self, until: int) -> None:
        while len(self._made.ids) < until and await self._may_go_on():
            step = min(self._context.scale.live_sample, until - len(self._made.ids))
            try:
                await self.make_room_for(step)
                await each(range(step), lambda _: self._one(), AT_ONCE)
            except* Refused as refused:
                self.stopped = str(refused.exceptions[0])
                self._context.say(f"  {self.stopped}")
            self._context.say(
                f"  {len(self._made.ids)} live sessions, {len(self.suspended)} suspended, "
                f"{machine.available_mb():.0f} MB available, {swap_mb():.0f} MB in swap"
            )
        self.seconds = time.monotonic() - self._began

    async def _one(self) -> None:
        if not has_room():
            return
        key = uuid.uuid4().hex
        session, refusals = await with_patience(lambda: self._context.client.create_once(key), again=LATE)
        self._made.ids.append(session)
        self.refusals += refusals
        await with_patience(lambda: self._context.client.execute(session, code=CODE))

    async def give_up(self, count: int) -> None:
        """Deletes the newest sessions, where the host has no room for others."""
        for session in self._made.ids[-count:]:
            await self._made.delete(session)
        self.suspended = self.suspended[: len(self._made.ids)]  # they are the oldest

    async def make_room_for(self, more: int) -> None:
        """Suspends the oldest of the active ones, so that not too many are active with so many more."""
        active = self._made.ids[len(self.suspended) :]
        oldest = active[: max(0, len(active) + more - self._most_active)]
        await each(oldest, lambda session: self._context.client.sleep(session, "idle"), AT_ONCE)
        self.suspended += oldest

    async def _may_go_on(self) -> bool:
        """Waits while memory is short and page-outs go on."""
        deadline, last = time.monotonic() + AFTER + REST_SECONDS, swap_mb()
        while not self.stopped and not has_room():
            now = swap_mb()
            if now - last > SWAP_GROWS_MB:
                deadline = time.monotonic() + AFTER + REST_SECONDS
            elif time.monotonic() > deadline:
                self.stopped = f"less than {LEAST_MB:.0f} MB are available"
            last = now
            await asyncio.sleep(1.0)
        return not self.stopped


def _compared(what: str, last: list[float], first: list[float], count: int, note: str) -> Row:
    measured, baseline = summarise(last), summarise(first)
    return Row(
        figure="many-live",
        what=f"{what}, with {count} live sessions",
        measured=measured,
        baselines=(Baseline(f"the first {baseline.n}", baseline),),
        checks=(ratio("p50", measured.p50, baseline.p50, MOST),),
        note=note,
    )


async def _own_work(context: Context) -> str:
    """Describes what the server takes when nobody asks it for anything: most of it is the keeper's work."""
    before = await context.client.number(NUMBERS["CPU"])
    await asyncio.sleep(REST_SECONDS)
    spent = await context.client.number(NUMBERS["CPU"]) - before
    memory = await context.client.number(NUMBERS["memory"]) / (1 << 20)
    return f"{100 * spent / REST_SECONDS:.1f} % of a core and {memory:.0f} MB"
