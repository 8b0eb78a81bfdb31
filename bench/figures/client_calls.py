"""The cost of a call with an SDK, compared with the same call with curl: one after the other, on one connection."""

import asyncio
from collections.abc import Mapping

from bench import clients
from bench.context import Context, sessions
from bench.report import Baseline, Check, Row
from bench.statistics import summarise

MOST_MS = 1.0
WHAT = {"get": "GET of a session", "write": "POST /files/write of 1 KB"}


async def measure(context: Context) -> list[Row]:
    scale, server = context.scale, context.server
    await asyncio.to_thread(clients.build_typescript, server.bun)
    rows = []
    async with sessions(context) as made:
        await made.create()
        where = (server.url, server.key, made.ids[0], scale.client_calls)
        for language in clients.languages(server.bun):
            before = await asyncio.to_thread(clients.curl_calls, *where)
            taken = await asyncio.to_thread(clients.calls, language, *where)
            after = await asyncio.to_thread(clients.curl_calls, *where)
            rows += [_row(language.name, kind, taken[kind], [*before[kind], *after[kind]]) for kind in WHAT]
    return rows


def _row(language: str, kind: str, taken: Mapping[str, list[float]], curl: list[float]) -> Row:
    sdk, plain, baseline = summarise(taken["sdk"]), summarise(taken["plain"]), summarise(curl)
    return Row(
        figure="client-calls",
        what=f"{WHAT[kind]} by the SDK, {language}",
        measured=sdk,
        baselines=(Baseline("curl", baseline), Baseline("the language's own HTTP client", plain)),
        checks=(
            Check("p50: more than curl by", sdk.p50 - baseline.p50, MOST_MS, " ms"),
            Check("more than its own HTTP client by", sdk.p50 - plain.p50, MOST_MS, " ms"),
        ),
    )
