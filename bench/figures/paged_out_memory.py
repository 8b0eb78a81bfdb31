"""The memory of suspended sessions with a web server, before and after they are paged out, and what their wake costs.

Half of the sessions are paged out as the server does it a minute after a suspension, to swap that the figure adds. The
other half stay as they are. They change places each round.
"""

import asyncio
from collections.abc import Callable, Sequence, Set
from functools import partial

from bench import machine
from bench.context import MS, Context, each, sessions
from bench.exchanges import first_byte
from bench.paging import page_out
from bench.previews import Preview, serve
from bench.report import Baseline, Check, Row
from bench.statistics import summarise

MOST_MB, MOST_P50_MS, MOST_P99_MS = 1.0, 20.0, 100.0
QUIET_SECONDS = 1.5  # then the edge remembers no permission, holds no session, and all CPU quotas are full
SLEEPS_AT_ONCE = 4
SWAP_MB = 2048


async def measure(context: Context) -> list[Row]:
    instance, rounds = context.server.config.instance, 2 * context.scale.rounds
    times: dict[str, list[float]] = {"active": [], "suspended": [], "paged out": []}
    memory, costs = list[float](), list[float]()
    with machine.swap(context.server.scratch / "swap", SWAP_MB) as refused:
        if refused:
            return [Row(figure="paged-out-memory", what="suspended sessions", skipped=f"no swap: {refused}")]
        async with sessions(context) as made:
            previews = [await serve(context, made) for _ in range(context.scale.paged_sessions)]
            await context.settled(len(previews))
            for turn in range(rounds):
                out, stay = previews[turn % 2 :: 2], previews[1 - turn % 2 :: 2]
                await _visit(previews, lambda _: "active", times)
                await each(previews, lambda one: context.client.sleep(one.session, "idle"), SLEEPS_AT_ONCE)
                memory.append(_held(context, instance, out) / len(out))
                costs += [await asyncio.to_thread(_page_out, context, one) for one in out]
                memory.append(_held(context, instance, out) / len(out))
                await _visit([*out, *stay], partial(_kind, {one.session for one in out}), times)
    # later rounds have what is left of earlier ones in swap
    return [_memory(memory[0], memory[1], len(previews) // 2, costs), _wakes(times)]


def _kind(paged_out: Set[str], one: Preview) -> str:
    return "paged out" if one.session in paged_out else "suspended"


async def _visit(previews: Sequence[Preview], kind: Callable[[Preview], str], times: dict[str, list[float]]) -> None:
    """Asks for one page of each, those of a half and the other by turns."""
    await asyncio.sleep(QUIET_SECONDS)
    half = len(previews) // 2
    for pair in zip(previews[:half], previews[half:], strict=False):
        for one in pair:
            times[kind(one)].append(await asyncio.to_thread(first_byte, one.edge) * MS)


def _page_out(context: Context, one: Preview) -> float:
    """Returns the milliseconds of CPU time that it took."""
    config = context.server.config
    return page_out(config, machine.sandbox_of(config, one.session))


def _held(context: Context, instance: str, previews: Sequence[Preview]) -> float:
    """Returns the MB of memory that the sessions take: of their cgroups without files, and of all compressed memory."""
    names = [machine.sandbox_of(context.server.config, one.session) for one in previews]
    return sum(machine.without_files_mb(instance, name) for name in names) + machine.zram_mb()


def _memory(before: float, after: float, count: int, costs: Sequence[float]) -> Row:
    return Row(
        figure="paged-out-memory",
        what=f"memory of a suspended session with a web server that was paged out (over {count})",
        checks=(Check("with kernel objects and compressed memory", after, MOST_MB, " MB"),),
        note=f"before {before:.2f} MB; CPU time for one: p50 {summarise(costs).p50:.1f} ms, with the program's start",
    )


def _wakes(times: dict[str, list[float]]) -> Row:
    out, suspended, active = (summarise(times[kind]) for kind in ("paged out", "suspended", "active"))
    return Row(
        figure="paged-out-memory",
        what="first byte from a suspended session that was paged out",
        measured=out,
        baselines=(Baseline("from an active one", active), Baseline("from one not paged out", suspended)),
        checks=(
            Check("p50: more by", out.p50 - active.p50, MOST_P50_MS, " ms"),
            Check("p99: more by", out.p99 - active.p99, MOST_P99_MS, " ms"),
        ),
        note=f"p99 active {active.p99:.1f} ms, not paged out {suspended.p99:.1f} ms",
    )
