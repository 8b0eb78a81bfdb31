"""The echo of a key in a session's terminal, compared with a shell on a local PTY. The bare chain has one beside it."""

import asyncio
import time

from bench.api import way_of
from bench.bare_chain import BareChain, bare_chain
from bench.context import MS, Context, sessions
from bench.keyboards import Keyboard, clear, echo, local, remote, settle
from bench.previews import Way
from bench.report import Baseline, Check, Row
from bench.statistics import summarise

MOST_MS, MOST_P99_MS = 0.5, 3.0
PAUSE_SECONDS = 0.02
LINE = 40  # keys before the line is cleared


async def measure(context: Context) -> list[Row]:
    async with sessions(context) as made, bare_chain(context, 1) as chain:
        await made.create()
        taken = await asyncio.to_thread(_taken, way_of(context.server), made.ids[0], chain, context.scale.terminal_keys)
    measured, baseline, bare = (summarise([seconds * MS for seconds in times]) for times in taken)
    return [
        Row(
            figure="terminal-echo",
            what="echo of a key by the shell in a session's terminal",
            measured=measured,
            baselines=(Baseline("bash at a local PTY", baseline), Baseline("bash by the bare chain", bare)),
            checks=(
                Check("p50: more by", measured.p50 - baseline.p50, MOST_MS, " ms"),
                Check("p99: more by", measured.p99 - baseline.p99, MOST_P99_MS, " ms"),
            ),
            note=f"local p99 {baseline.p99:.2f} ms; "
            f"the bare chain takes {bare.p50 - baseline.p50:.2f} ms more than local, "
            f"and at p99 {bare.p99 - baseline.p99:.2f} ms",
        )
    ]


def _taken(api: Way, session: str, chain: BareChain, keys: int) -> list[list[float]]:
    """Measures the terminal, the PTY and the bare chain in turn, key by key."""
    with remote(api, session) as far, local() as near, chain.terminal(0) as bare:
        taken: list[tuple[Keyboard, list[float]]] = [(far, []), (near, []), (bare, [])]
        for keyboard, _ in taken:
            settle(keyboard)
            echo(keyboard, b"w")
        for number in range(keys):
            for keyboard, times in taken:
                if number % LINE == 0:
                    clear(keyboard)
                time.sleep(PAUSE_SECONDS)
                times.append(echo(keyboard, b"q"))
        return [times for _, times in taken]
