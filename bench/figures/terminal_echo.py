"""The echo of a key in a session's terminal, compared with a shell on a local PTY."""

import asyncio
import time

from bench.api import way_of
from bench.context import MS, Context, sessions
from bench.keyboards import Keyboard, clear, echo, local, remote, settle
from bench.previews import Way
from bench.report import Baseline, Check, Row
from bench.statistics import summarise

MOST_MS, MOST_P99_MS = 0.5, 3.0
PAUSE_SECONDS = 0.02
LINE = 40  # keys before the line is cleared


async def measure(context: Context) -> list[Row]:
    async with sessions(context) as made:
        await made.create()
        taken = await asyncio.to_thread(_taken, way_of(context.server), made.ids[0], context.scale.terminal_keys)
    measured, baseline = (summarise([seconds * MS for seconds in times]) for times in taken)
    return [
        Row(
            figure="terminal-echo",
            what="echo of a key by the shell in a session's terminal",
            measured=measured,
            baselines=(Baseline("bash at a local PTY", baseline),),
            checks=(
                Check("p50: more by", measured.p50 - baseline.p50, MOST_MS, " ms"),
                Check("p99: more by", measured.p99 - baseline.p99, MOST_P99_MS, " ms"),
            ),
            note=f"local p99 {baseline.p99:.2f} ms",
        )
    ]


def _taken(api: Way, session: str, keys: int) -> tuple[list[float], list[float]]:
    """Measures the terminal and the PTY in turn, key by key."""
    with remote(api, session) as far, local() as near:
        taken: list[tuple[Keyboard, list[float]]] = [(far, []), (near, [])]
        for keyboard, _ in taken:
            settle(keyboard)
            echo(keyboard, b"w")
        for number in range(keys):
            for keyboard, times in taken:
                if number % LINE == 0:
                    clear(keyboard)
                time.sleep(PAUSE_SECONDS)
                times.append(echo(keyboard, b"q"))
        return taken[0][1], taken[1][1]
