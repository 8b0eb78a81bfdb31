"""A program from start to end: it creates a session, prints the output of code in it, and deletes it."""

import asyncio

from bench import clients
from bench.clients import Language, Started
from bench.context import Context
from bench.report import Baseline, Row
from bench.statistics import summarise


async def measure(context: Context) -> list[Row]:
    server, runs = context.server, context.scale.client_starts
    await asyncio.to_thread(clients.build_typescript, server.bun)
    await context.settled()
    rows = []
    for language in clients.languages(server.bun):
        rows.append(await asyncio.to_thread(_row, context, language, runs))
        await context.settled()
    return rows


def _row(context: Context, language: Language, runs: int) -> Row:
    where = (context.server.url, context.server.key)
    program = [*language.command, str(clients.PROGRAMS / f"first{language.suffix}")]
    script = ["sh", str(clients.PROGRAMS / "first.sh")]
    whole: list[Started] = []
    curl: list[Started] = []
    imports: list[Started] = []
    for _ in range(runs):
        whole.append(clients.first_output(program, *where))
        curl.append(clients.first_output(script, *where))
        imports.append(clients.import_alone(language))
    imported = summarise([one.milliseconds for one in imports])
    peak, import_peak, curl_peak = (
        summarise([one.peak_mb for one in started]).p50 for started in (whole, imports, curl)
    )
    return Row(
        figure="client-start",
        what=f"program start to session deleted, with output, {language.name}: "
        f"peak {peak:.0f} MB; import alone: {imported.p50:.0f} ms, {import_peak:.0f} MB",
        measured=summarise([one.milliseconds for one in whole]),
        baselines=(
            Baseline(f"sh with three curls, peak {curl_peak:.0f} MB", summarise([one.milliseconds for one in curl])),
        ),
    )
