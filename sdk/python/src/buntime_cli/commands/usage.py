"""`buntime usage`: what the account's sessions use now."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from buntime_cli.commands.connection import connected
from buntime_cli.commands.options import AsJson
from buntime_cli.commands.showing import live_processes, print_json, print_table

if TYPE_CHECKING:
    from buntime_sdk import Session

usage = typer.Typer()

STATES = ("active", "idle", "deep-sleep")


@usage.command("usage")
def usage_command(context: typer.Context, as_json: AsJson = False) -> None:
    """Sum up the limits of the account's sessions.

    Shows the sums by state, and how many requests the key has left in this minute. These are current limits and counts:
    the server does not meter use over time.

    Example: buntime usage --json
    """
    with connected(context, as_json) as client:
        found = list(client.sessions.list(page_size=100))
        rate = client.rate_limit
    sums = {state: _sum([session for session in found if session.state == state]) for state in STATES}
    sums["all"] = _sum(found)
    if as_json:
        print_json({"sessions": sums, "rateLimit": rate})
        return
    rows = [(state, *(_shown(number) for number in numbers.values())) for state, numbers in sums.items()]
    print_table(("STATE", "SESSIONS", "MEMORY MB", "CPU", "DISK MB", "PROCESSES", "FILES"), rows)
    if rate is not None:
        print(f"\nThis key has {rate.remaining} of {rate.limit} requests left in this minute.")


def _shown(number: float) -> str:
    return f"{round(number, 2):.15g}"


def _sum(sessions: Sequence["Session"]) -> dict[str, float]:
    limits = [session.resource_limits for session in sessions]
    return {
        "sessions": len(sessions),
        "memory": sum(limit.memory for limit in limits),
        "cpu": sum(limit.cpu for limit in limits),
        "disk": sum(limit.disk for limit in limits),
        "processes": sum(live_processes(session) for session in sessions),
        "files": sum(session.files_count for session in sessions),
    }
