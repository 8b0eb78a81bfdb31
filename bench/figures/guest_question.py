"""A question to the guest through the API, compared with a request that the server answers from memory."""

from bench.context import Context, sessions, stopwatch
from bench.pace import by_turns
from bench.report import Baseline, Check, Row
from bench.statistics import summarise

MOST_MS = 0.3


async def measure(context: Context) -> list[Row]:
    scale, client = context.scale, context.client

    async def list_files(session: str) -> float:
        return await stopwatch(client.get("/files/list", {"sessionId": session}))

    async def list_sessions(_: str) -> float:
        return await stopwatch(client.get("/sessions", {"limit": "1"}))

    async with sessions(context) as made:
        await made.create_many(scale.execution_sessions)
        works = {"files": list_files, "sessions": list_sessions}
        taken = await by_turns(scale.execution_turns, made.ids, works)
    measured, baseline = (summarise(taken[name]) for name in works)
    return [
        Row(
            figure="guest-question",
            what="/files/list of an empty directory",
            measured=measured,
            baselines=(Baseline("GET /sessions?limit=1", baseline),),
            checks=(Check("p50: more by", measured.p50 - baseline.p50, MOST_MS, " ms"),),
        )
    ]
