"""Snapshots of a session that writes all the time, beside many others that write. Does its program pause?

A pause is how much later than its pace the program's next write was done. Each snapshot counts with the longest pause
while it was taken. As much time without a snapshot, right before each, counts in the same way.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from bench import gaps, residents
from bench.context import MS, Context, beside, each, sessions
from bench.report import Baseline, Check, Row
from bench.statistics import Summary, summarise

MOST_MS = 20.0
MB = 1 << 20
INTERVAL = 0.01  # seconds between two writes
BLOCK = MB // 10  # bytes of one; 10 MB/s in all
LIMITS = {"cpu": 2, "memory": 2048, "disk": 8192}
SETTINGS = {"BUNTIME_IDLE_AFTER": "0"}  # the writers get no requests
POOL_SIZE = 40
AT_ONCE = 4
AFTER_SECONDS = 1.0  # after the answer, until the snapshot is deleted
REST_SECONDS = 2.5  # until the next
SAMPLE = 10  # of the writers are asked how much they have written

type Span = tuple[float, float]  # start and end, on the clock of `time.monotonic`


@dataclass(slots=True)
class Spans:
    during: list[Span] = field(default_factory=list)
    before: list[Span] = field(default_factory=list)  # as long
    second_after: list[Span] = field(default_factory=list)
    second_before: list[Span] = field(default_factory=list)


async def measure(context: Context) -> list[Row]:
    scale = context.scale
    async with beside(context, POOL_SIZE, SETTINGS) as other, sessions(other) as made, sessions(other) as others:
        client = other.client
        await made.create(resourceLimits=LIMITS)
        writer = made.ids[0]
        await residents.fill(client, writer, "tree", scale.snapshot_mb // 10, 10 * MB, "random")
        await others.create_many(scale.snapshot_writers, AT_ONCE)
        await each(others.ids, lambda session: residents.start(client, session, residents.SCRIBBLE), AT_ONCE)
        await other.settled(scale.snapshot_writers + 1)
        await residents.put(client, writer, "steady.py")
        command = f"exec python3 steady.py tree/d0/f0.js {BLOCK} {INTERVAL} notes.json"
        process = await residents.start(client, writer, command, "writes")
        written, begun = await _written(other, others.ids), time.monotonic()
        spans = await _snapshots(other, writer)
        rate = (await _written(other, others.ids) - written) / (time.monotonic() - begun)
        load = os.getloadavg()[0]
        await residents.end(client, writer, process)
        done = msgspec.json.decode(await client.get("/files/content", {"sessionId": writer, "path": "notes.json"}))
    pace = len(done) * BLOCK / MB / (done[-1] - done[0])
    note = f"{pace:.1f} MB/s; each of the others {rate:.1f} files/s; load {load:.1f}"
    return _rows(context, spans, done, note)


async def _written(context: Context, ids: list[str]) -> float:
    """Returns how many files a writer has written, as the mean of some of them."""
    asked = ids[:: max(len(ids) // SAMPLE, 1)]
    counts = [await context.client.execute(session, command="sort -n scribble* | tail -1") for session in asked]
    return sum(int(count["stdout"]) for count in counts) / len(asked)


async def _snapshots(context: Context, session: str) -> Spans:
    """Takes one snapshot after the other."""
    client, spans = context.client, Spans()
    for _ in range(context.scale.snapshots):
        await asyncio.sleep(REST_SECONDS)
        begun = time.monotonic()
        snapshot = await client.snapshot(session)
        answered = time.monotonic()
        await asyncio.sleep(AFTER_SECONDS)
        ended = time.monotonic()
        await client.delete_snapshot(snapshot)
        spans.during.append((begun, answered))
        spans.before.append((begun - (answered - begun), begun))
        spans.second_after.append((answered, ended))
        spans.second_before.append((begun - (ended - answered), begun))
    return spans


def _rows(context: Context, spans: Spans, done: Sequence[float], note: str) -> list[Row]:
    scale = context.scale
    beside_them = f"beside {scale.snapshot_writers} sessions that write"
    every = summarise([pause * MS for span in spans.during for pause in gaps.pauses(done, INTERVAL, *span)])
    during, before = _longest(done, spans.during), _longest(done, spans.before)
    after, quiet = _longest(done, spans.second_after), _longest(done, spans.second_before)
    return [
        Row(
            figure="snapshot-pause",
            what=f"longest pause of a program during a snapshot of its {scale.snapshot_mb} MB, {beside_them}",
            measured=during,
            baselines=(Baseline("in as much time before it", before),),
            checks=(Check("p99", during.p99, MOST_MS, " ms"),),
            note=f"before it p95 {before.p95:.1f} ms, p99 {before.p99:.1f} ms; of all {every.n} writes during "
            f"snapshots, p99 {every.p99:.1f} ms",
        ),
        Row(
            figure="snapshot-pause",
            what="longest pause in the second after it, while it is being archived",
            measured=after,
            baselines=(Baseline("in the second before it", quiet),),
            note=f"before it p95 {quiet.p95:.1f} ms, p99 {quiet.p99:.1f} ms",
        ),
        Row(
            figure="snapshot-pause",
            what=f"snapshot of a running session that writes, {scale.snapshot_mb} MB, {beside_them}",
            measured=summarise([(end - start) * MS for start, end in spans.during]),
            note=note,
        ),
    ]


def _longest(done: Sequence[float], spans: Sequence[Span]) -> Summary:
    """Milliseconds of the longest pause in each span."""
    return summarise([max(gaps.pauses(done, INTERVAL, *span)) * MS for span in spans])
