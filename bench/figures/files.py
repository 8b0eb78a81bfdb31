"""Writing and reading a large file over HTTP, compared with copying it inside the sandbox."""

import msgspec

from bench.context import Context, sessions, stopwatch
from bench.report import Baseline, Row, ratio
from bench.statistics import summarise

MOST = 5
MB = 1 << 20
# Without --reflink=never nothing would be copied. bash reads the clock, so that its own start does not count.
COPY = "a=${EPOCHREALTIME/[.,]/}; cp --reflink=never big copy; b=${EPOCHREALTIME/[.,]/}; rm copy; echo $((b - a))"


async def measure(context: Context) -> list[Row]:
    scale, client = context.scale, context.client
    content = "The quick brown fox jumps over the lazy dog, 0123456789 times.\n" * (scale.file_mb * MB // 64 + 1)
    content = content[: scale.file_mb * MB]
    writes: list[float] = []
    reads: list[float] = []
    copies: list[float] = []
    async with sessions(context) as made:
        await made.create_many(scale.file_sessions)
        for _ in range(scale.rounds):
            for session in made.ids:
                body = msgspec.json.encode({"sessionId": session, "path": "big", "content": content})
                query = {"sessionId": session, "path": "big"}
                writes.append(await stopwatch(client.post("/files/write", body)))
                reads.append(await stopwatch(client.get("/files/read", query)))
                copies.append(int((await client.execute(session, command=COPY))["stdout"]) / 1000)
        read = msgspec.json.decode(await client.get("/files/read", {"sessionId": made.ids[0], "path": "big"}))
        if read["content"] != content:
            raise ValueError("what was read is not what was written")
    both = summarise([write + read for write, read in zip(writes, reads, strict=True)])
    baseline = Baseline("cp in the sandbox", summarise(copies))
    return [
        Row(
            figure="files",
            what=f"/files/write + /files/read of {scale.file_mb} MB",
            measured=both,
            baselines=(baseline,),
            checks=(ratio("p50", both.p50, baseline.measured.p50, MOST),),
            note=f"write p50 {summarise(writes).p50:.1f} ms, read p50 {summarise(reads).p50:.1f} ms",
        )
    ]
