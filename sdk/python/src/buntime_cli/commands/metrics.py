"""`buntime metrics`: what a session did over time."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from buntime_cli.commands.connection import connected
from buntime_cli.commands.naming import SessionName, find
from buntime_cli.commands.options import AsJson
from buntime_cli.commands.showing import print_json, print_table, size, wire
from buntime_cli.time_spans import seconds

if TYPE_CHECKING:
    from buntime_sdk import MetricsPoint, SessionMetrics

metrics = typer.Typer()

HEAD = ("TIME", "CPU", "MOST", "MEMORY", "MOST", "DISK", "PROCS", "IN", "OUT")


@metrics.command("metrics")
def metrics_command(
    context: typer.Context,
    session: SessionName,
    last: Annotated[str, typer.Option(metavar="TIME", help="How far back: 30m, 24h, 7d.")] = "1h",
    step: Annotated[
        str | None, typer.Option(metavar="TIME", help="Time of each line: 10s, 5m. Default: at most 60 lines.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a session used over time.

    Measured every 10 seconds while it is active; a day of that is kept, and a week in steps of 5 minutes. A line of
    dashes stands for a time in which it did not run. This does not wake the session.

    Example: buntime metrics demo --last 24h --step 1h
    """
    wanted = seconds(last)
    each = seconds(step) if step is not None else max(10, wanted // 60)
    with connected(context, as_json) as client:
        found = find(client, session).metrics(since=datetime.now(UTC) - timedelta(seconds=wanted), step=each)
    if as_json:
        told = {"sessionId": found.session_id, "from": wire(found.since), "to": wire(found.until)}
        print_json({**told, "step": found.step, "points": found.points})
    else:
        print_table(HEAD, list(_rows(found)))


def _rows(found: "SessionMetrics") -> Iterator[tuple[str, ...]]:
    expected = None
    for point in found.points:
        if expected is not None and point.time > expected:
            yield (_shown(expected), *("-",) * (len(HEAD) - 1))
        expected = point.time + timedelta(seconds=found.step)
        yield _row(point)


def _row(point: "MetricsPoint") -> tuple[str, ...]:
    return (
        *(_shown(point.time), f"{point.cpu:.2f}", f"{point.cpu_max:.2f}", size(point.memory), size(point.memory_max)),
        *(size(point.disk), f"{point.processes:g}", size(point.bytes_in), size(point.bytes_out)),
    )


def _shown(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
