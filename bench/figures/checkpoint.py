"""A session that writes all the time, with a checkpoint every five seconds to S3, beside the same one without.

The two take turns. A write that is late does not make the next ones come sooner, so each pause costs throughput.
"""

import asyncio
from dataclasses import dataclass, field
from itertools import pairwise

import msgspec

from bench import archived, residents
from bench.client import Client
from bench.context import MS, Context, beside, sessions
from bench.report import Baseline, Row, ratio
from bench.statistics import summarise
from tests.contracts.seaweed import BUCKET, seaweed

LEAST = 0.95
MB = 1 << 20
EVERY = 5  # seconds between two checkpoints
INTERVAL = 0.01  # seconds between two writes
BLOCK = MB // 50  # bytes of one; 2 MB/s in all
FILE_MB = 64  # of the file that is written over and over
POOL = 2
SETTINGS = {"BUNTIME_IDLE_AFTER": "0"}  # the writers get no requests
TAKEN, SPENT = "buntime_checkpoint_seconds_count", "buntime_checkpoint_seconds_sum"


@dataclass(slots=True)
class Turns:
    rates: list[float] = field(default_factory=list)  # MB/s
    longest: float = 0.0  # milliseconds between two writes


async def measure(context: Context) -> list[Row]:
    home = context.server.scratch / "seaweed"
    home.mkdir(exist_ok=True)
    with seaweed(home) as store:
        environ = {**SETTINGS, **store.environ, "BUNTIME_ARCHIVE": f"s3://{BUCKET}/bench"}
        async with beside(context, POOL, environ) as other:
            return [await _row(other)]


async def _row(context: Context) -> Row:
    client, scale = context.client, context.scale
    kept, plain = Turns(), Turns()
    async with sessions(context) as made:
        for every in (EVERY, "never"):
            await made.create(resourceLimits=archived.LIMITS, sleepPolicy={"checkpointEvery": every})
            await residents.fill(client, made.ids[-1], "tree", 1, FILE_MB * MB, "random")
            await residents.put(client, made.ids[-1], "steady.py")
        async with asyncio.timeout(archived.ARCHIVED_SECONDS):
            while not await client.gauge(TAKEN):  # noqa: ASYNC110 - the server's
                await asyncio.sleep(archived.LOOK_SECONDS)
        taken, spent = 0, 0.0
        for _ in range(scale.checkpoint_turns):
            count, seconds = await client.gauge(TAKEN), await client.number(SPENT)
            await _turn(client, made.ids[0], scale.checkpoint_seconds, kept)
            taken, spent = taken + await client.gauge(TAKEN) - count, spent + await client.number(SPENT) - seconds
            await _turn(client, made.ids[1], scale.checkpoint_seconds, plain)
    if not taken:
        raise RuntimeError("no checkpoint was taken")
    measured, baseline = summarise(kept.rates), summarise(plain.rates)
    return Row(
        figure="checkpoint",
        what=f"throughput of a session that writes 2 MB/s, with a checkpoint to S3 each {EVERY} s",
        measured=measured,
        unit="MB/s",
        baselines=(Baseline("the same without checkpoints", baseline, "MB/s"),),
        checks=(ratio("p50", measured.p50, baseline.p50, LEAST, least=True),),
        note=f"{taken} checkpoints of {spent / taken * MS:.0f} ms; the longest time between two writes, which are "
        f"{INTERVAL * MS:.0f} ms apart: {kept.longest:.0f} ms, without {plain.longest:.0f} ms",
    )


async def _turn(client: Client, session: str, seconds: float, turns: Turns) -> None:
    command = f"exec python3 steady.py tree/d0/f0.js {BLOCK} {INTERVAL} notes.json fresh"
    process = await residents.start(client, session, command, "writes")
    await asyncio.sleep(seconds)
    await residents.end(client, session, process)
    done = msgspec.json.decode(await client.get("/files/content", {"sessionId": session, "path": "notes.json"}))
    turns.rates.append((len(done) - 1) * BLOCK / MB / (done[-1] - done[0]))
    pauses = [later - sooner for sooner, later in pairwise(done)]
    turns.longest = max(turns.longest, max(pauses) * MS)
