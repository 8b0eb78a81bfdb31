"""Much output through a stream, compared with a pipe into `cat` in the same session; and the memory that it takes.

The bare chain carries as much beside it.
"""

import asyncio

from bench import machine
from bench.api import stream_of, way_of
from bench.bare_chain import MARK, BareChain, bare_chain
from bench.context import Context, sessions
from bench.previews import MB, Way
from bench.report import Baseline, Check, Row, ratio
from bench.statistics import summarise

LEAST = 0.5
FLAT_MB = 10.0  # a tenth of the output
CORES = 1.0
STALLED_SECONDS = 2.0
# One writes as fast as it can; the other as programs usually do. Both write COUNT times 64 KB.
PROGRAMS = {
    "in pieces of 64 KB": """
import { writeSync } from "fs";
const piece = Buffer.from(("~" + "x".repeat(62) + "\\n").repeat(1024));
for (let left = COUNT; left > 0; left--)
  for (let at = 0; at < piece.length; ) at += writeSync(1, piece, at);
""",
    "by console.log of lines of 64 bytes": """
const line = "~" + "x".repeat(62);
for (let left = COUNT * 1024; left > 0; left--) console.log(line);
""",
}
PIPE = "a=${EPOCHREALTIME/[.,]/}; bun write.ts | cat >/dev/null; b=${EPOCHREALTIME/[.,]/}; echo $((b - a))"


async def measure(context: Context) -> list[Row]:
    async with sessions(context) as made, bare_chain(context, 1) as chain:
        session = str((await context.client.create_with({"resourceLimits": {"cpu": CORES}}))["sessionId"])
        made.ids.append(session)
        return [await _row(context, session, chain, how) for how in PROGRAMS]


async def _row(context: Context, session: str, chain: BareChain, how: str) -> Row:
    scale, client = context.scale, context.client
    size, api = scale.stream_mb, way_of(context.server)
    rates: list[float] = []
    piped: list[float] = []
    bare: list[float] = []
    program = PROGRAMS[how].replace("COUNT", str(size * MB // 65536))
    processes = machine.edge_processes(context.server.config)

    async def stream(stalled: float = 0.0) -> float:
        run = {"sessionId": session, "code": program, "timeout": 120}
        return await asyncio.to_thread(_checked_stream, api, run, size, stalled)

    async def pipe() -> float:
        files = [{"path": "write.ts", "content": program}]
        done = await client.execute(session, command=PIPE, files=files, timeout=120)
        return int(done["stdout"]) / 1e6

    machine.forget_peaks(processes)
    before = machine.memory_mb(processes, "VmRSS")
    await pipe(), await stream()  # warms up
    for _ in range(scale.stream_rounds):
        rates.append(size / await stream())
        piped.append(size / await pipe())
        bare.append(size / await asyncio.to_thread(chain.stream, 0, size))
    await stream(STALLED_SECONDS)
    peak = machine.memory_mb(processes, "VmHWM")
    measured, baseline, chained = summarise(rates), summarise(piped), summarise(bare)
    return Row(
        figure="stream-output",
        what=f"{size} MB of output through a stream, {how}; session with {CORES:g} core",
        note=f"the bare chain has {chained.p50 / baseline.p50:.2f}× in pieces of 64 KB; "
        f"server and nginx: {before:.0f} MB before, {peak:.0f} at most, "
        f"even while the client read nothing for {STALLED_SECONDS:g} s",
        measured=measured,
        unit="MB/s",
        baselines=(
            Baseline("bun … | cat in the session", baseline, "MB/s"),
            Baseline("pieces of 64 KB by the bare chain", chained, "MB/s"),
        ),
        checks=(
            ratio("p50", measured.p50, baseline.p50, LEAST, least=True),
            Check("memory: more by", peak - before, FLAT_MB, " MB"),
        ),
    )


def _checked_stream(api: Way, run: dict[str, object], size: int, stalled: float) -> float:
    seconds, marks = stream_of(api, run, MARK, stalled)
    if marks != size * MB // 64:
        raise ValueError(f"{marks} lines came through the stream, not {size * MB // 64}")
    return seconds
