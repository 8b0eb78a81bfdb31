"""A machine that fills up with live sessions. Does the last one cost as much as the first?"""

import asyncio
import time
from dataclasses import dataclass

from bench.baselines import CODE
from bench.context import MS, Context, Sessions, each, sessions, stopwatch
from bench.figures.memory import steady
from bench.machine import available_mb, free_mb
from bench.pace import by_turns
from bench.report import Baseline, Check, Row, ratio
from bench.retrying import with_patience
from bench.statistics import summarise
from bench.usage import cpu_seconds, has_room, largest, slabs, watching_seconds

MOST = 3
MOST_DRIFT = 15.0  # percent
WINDOWS = (100, 500, 1000, 2000, 4000)  # live sessions at the end of each
SESSION_MB = 12.0  # at most, of one that ran code: a window begins only where it fits
LOOK_SECONDS = 1.0  # each look is work for the server
AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Window:
    """The newest of so many live sessions."""

    live: int
    creates: list[float]
    runs: list[float]  # each session's second, one behind the other
    turns: list[float]  # each session's third, by turns with …
    host: list[float]  # … `bun -e` on the host
    pace: float  # creates a second until the pool is full again
    cpu_ms: float  # of the machine for one create, with the refill of the pool
    damon_ms: float  # of it, what the kernel's DAMON takes
    available_mb: float  # that one created and used session takes
    free_mb: float
    slabs: str

    @property
    def row(self) -> Row:
        turns, host = summarise(self.turns), summarise(self.host)
        return Row(
            figure="live-sessions",
            what=f"one more session at {self.live} live ones: execute again",
            measured=summarise(self.runs),
            note=f"created at {1000 * len(self.creates) / sum(self.creates):.0f}/s, with the refill at "
            f"{self.pace:.1f}/s; CPU time {self.cpu_ms:.0f} ms, {self.damon_ms:.0f} of it DAMON; "
            f"MemAvailable {self.available_mb:.2f} MB, "
            f"MemFree {self.free_mb:.2f} MB; by turns {turns.p50:.1f} ms (p95 {turns.p95:.1f}), and bun -e on the host "
            f"{host.p50:.1f} ms (p95 {host.p95:.1f}), {turns.p50 / host.p50:.2f}×; slabs in MB: {self.slabs}",
        )


async def measure(context: Context) -> list[Row]:
    scale = context.scale
    sample = scale.live_sample
    async with sessions(context) as made:
        windows = list[Window]()
        for live in window_ends(sample, scale.live_sessions):
            stopped = await _fill(context, made, live - sample)
            windows.append(await _window(context, made))
            if stopped:
                break
        total = len(made.ids)
        spread = await _run_again(context, made.ids[:: total // sample][:sample])
    first, last = windows[0], windows[-1]
    why = f"memory was short at {total} of {scale.live_sessions}" if total < scale.live_sessions else ""
    return [
        _row(f"create with {total} live sessions", last.creates, first.creates),
        _row(f"execute again with {total} live sessions", spread, first.runs),
        *(window.row for window in windows),
        Row(figure="live-sessions", what="one more session, last and first", checks=_drifts(first, last), note=why),
    ]


def window_ends(sample: int, total: int) -> list[int]:
    """Returns the live sessions at the end of each window of `sample` sessions, which do not overlap."""
    return [sample, *(live for live in WINDOWS if 2 * sample <= live <= total - sample), total]


async def _fill(context: Context, made: Sessions, until: int) -> bool:
    """Creates as many at a time as the pool holds. Returns whether it stopped early, because memory is short."""
    room = context.scale.live_sample * SESSION_MB
    while len(made.ids) < until:
        if not has_room(room):
            return True
        step = min(context.scale.live_sample, until - len(made.ids))
        await each(range(step), lambda _: with_patience(made.create), AT_ONCE)
        context.say(f"  {len(made.ids)} live sessions, {available_mb():.0f} MB available")
    return False


async def _window(context: Context, made: Sessions) -> Window:
    sample = context.scale.live_sample
    await context.settled(len(made.ids))
    available, free = await steady(available_mb), free_mb()
    began, cpu, damon = time.monotonic(), cpu_seconds(), watching_seconds()
    creates = [await made.create() for _ in range(sample)]
    await _refilled(context)
    spent, cpu, damon = time.monotonic() - began, cpu_seconds() - cpu, watching_seconds() - damon
    runs = await _run_again(context, made.ids[-sample:])
    await context.settled(len(made.ids))
    turns, host = await _run_by_turns(context, made.ids[-sample:])
    await context.settled(len(made.ids))
    after, free_after = await steady(available_mb), free_mb()
    return Window(
        live=len(made.ids),
        creates=creates,
        runs=runs,
        turns=turns,
        host=host,
        pace=sample / spent,
        cpu_ms=cpu / sample * MS,
        damon_ms=damon / sample * MS,
        available_mb=(available - after) / sample,
        free_mb=(free - free_after) / sample,
        slabs=largest(slabs()),
    )


async def _refilled(context: Context) -> None:
    client, server = context.client, context.server
    wanted = {"buntime_pool_parked": server.pool_size, "buntime_pool_prepared": server.pool_prepared}
    while any([await client.gauge(name) < number for name, number in wanted.items()]):  # noqa: ASYNC110 - the server's
        await asyncio.sleep(LOOK_SECONDS)


async def _run_again(context: Context, ids: list[str]) -> list[float]:
    """Returns the milliseconds of each session's second run."""
    for session in ids:
        await context.client.execute(session, code=CODE)
    return [await stopwatch(context.client.execute(session, code=CODE)) for session in ids]


async def _run_by_turns(context: Context, ids: list[str]) -> tuple[list[float], list[float]]:
    """Returns the milliseconds of one more run of each session, and of `bun -e` on the host, by turns."""

    async def again(session: str) -> float:
        return await stopwatch(context.client.execute(session, code=CODE))

    async def bare(_: str) -> float:
        return await context.bun_run()

    taken = await by_turns(1, ids, {"again": again, "bare": bare})
    return taken["again"], taken["bare"]


def _row(what: str, last: list[float], first: list[float]) -> Row:
    measured, baseline = summarise(last), Baseline(f"the first {len(first)}", summarise(first))
    return Row(
        figure="live-sessions",
        what=what,
        measured=measured,
        baselines=(baseline,),
        checks=(ratio("p50", measured.p50, baseline.measured.p50, MOST),),
    )


def _drifts(first: Window, last: Window) -> tuple[Check, ...]:
    pairs = {
        "CPU time": (last.cpu_ms, first.cpu_ms),
        "CPU time without DAMON": (last.cpu_ms - last.damon_ms, first.cpu_ms - first.damon_ms),
        "MemAvailable": (last.available_mb, first.available_mb),
        "MemFree": (last.free_mb, first.free_mb),
        "execute p50": (_p50(last.runs), _p50(first.runs)),
        "execute p50 by turns": (_p50(last.turns), _p50(first.turns)),
    }
    return tuple(_drift(name, *values) for name, values in pairs.items())


def _drift(name: str, last: float, first: float) -> Check:
    change = last / first if first else float("inf")
    return Check(f"{name} {change:.2f}×, off by", abs(change - 1) * 100, MOST_DRIFT, " %")


def _p50(times: list[float]) -> float:
    return summarise(times).p50
