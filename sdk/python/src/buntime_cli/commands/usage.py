"""`buntime usage`: what the account used, and what its sessions may use now."""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from buntime_cli.commands.connection import connected
from buntime_cli.commands.naming import complete, find
from buntime_cli.commands.options import AsJson
from buntime_cli.commands.showing import live_processes, print_json, print_table, size, span, wire

if TYPE_CHECKING:
    from buntime_sdk import Buntime, Session, UsageGroup, UsageReport, UsageTotal

usage = typer.Typer()

STATES = ("active", "idle", "deep-sleep")
HEAD = ("ACTIVE", "IDLE", "DEEP SLEEP", "CPU", "MEMORY", "DISK", "ARCHIVE", "SENT", "RUNS", "WEIGHTED", "")
ALL = "all"  # the last row
HOUR = 3600
BAR = 20  # characters of the longest one
EIGHTHS = " ▏▎▍▌▋▊▉"


@usage.command("usage")
def usage_command(
    context: typer.Context,
    since: Annotated[
        str | None,
        typer.Option("--from", metavar="DATE", help="The first day, in UTC. Default: 29 days before the last."),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", metavar="DATE", help="The last day, in UTC. Default: today.")
    ] = None,
    by: Annotated[
        Literal["day", "session"], typer.Option(help="A row for each day, or for each session, the largest first.")
    ] = "day",
    session: Annotated[
        str | None,
        typer.Option(metavar="SESSION", help="Only this session: its id or name.", autocompletion=complete),
    ] = None,
    now: Annotated[bool, typer.Option("--now", help="Sum up the limits of the sessions that there are now.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what the account used: by day, with bars, or by session.

    ACTIVE, IDLE and DEEP SLEEP are times in these states. WEIGHTED adds them up by the rates of your plan, and the bars
    show it. CPU is processor time. MEMORY, DISK and ARCHIVE are what was kept on average for an hour (size × hours).
    With --now, it shows the sums of limits by state, and how many requests the key has left in this minute.

    Example: buntime usage --by session
    """
    if now:
        _show_limits(context, as_json)
        return
    first, last = _day("--from", since), _day("--to", until)
    with connected(context, as_json) as client:
        session_id = None if session is None else find(client, session).id
        report, groups = _read(client, first, last and last + timedelta(days=1), by, session_id)
    if as_json:
        shown = [{name: item for name, item in _told(group).items() if item is not None} for group in groups]
        told = {"from": report.since, "to": report.until, "total": report.total, "groups": shown}
        print_json(told)
        return
    _show(report, groups, by)


def _read(
    client: "Buntime", first: date | None, end: date | None, by: Literal["day", "session"], session_id: str | None
) -> tuple["UsageReport", Sequence["UsageGroup"]]:
    """The groups are all days, or all sessions with the largest first."""
    report = client.usage.get(since=first, until=end, session_id=session_id, group_by=by)
    if by == "day":
        return report, report.groups
    rest = client.usage.sessions(since=first, until=end, cursor=report.cursor) if report.cursor else ()
    groups = [*report.groups, *rest]
    return report, sorted(groups, key=lambda group: (-group.weighted_seconds, group.session_id))


def _show(report: "UsageReport", groups: Sequence["UsageGroup"], by: str) -> None:
    last = report.until - timedelta(days=1)
    if not groups:
        print(f"Nothing was used from {report.since:%Y-%m-%d} to {last:%Y-%m-%d}.")
        return
    most = max(group.weighted_seconds for group in groups)
    rows = _days(groups) if by == "day" else [(group.session_id or "", group) for group in groups]
    table = [_row(name, used, most) for name, used in rows]
    print_table((by.upper(), *HEAD), [*table, _row(ALL, report.total, 0)])


def _days(groups: Sequence["UsageGroup"]) -> Iterator[tuple[str, "UsageGroup | None"]]:
    """From the first day with use to the last one, with those between on which nothing was used."""
    by_day = {group.day: group for group in groups if group.day is not None}
    day, last = min(by_day), max(by_day)
    while day <= last:
        yield day.isoformat(), by_day.get(day)
        day += timedelta(days=1)


def _row(name: str, used: "UsageTotal | None", most: float) -> tuple[str, ...]:
    if used is None:
        return (name, *("" for _ in HEAD))
    kept = (used.memory_byte_seconds, used.disk_byte_seconds, used.archived_byte_seconds)
    return (
        *(name, span(used.active), span(used.idle), span(used.deep_sleep), span(used.cpu_seconds)),
        *(f"{size(amount / HOUR)}·h" for amount in kept),
        *(size(used.bytes_out), str(used.executions), span(used.weighted_seconds)),
        bar(used.weighted_seconds, most),
    )


def bar(amount: float, most: float) -> str:
    """A bar of blocks, in eighths of a character. `most` has the longest one."""
    whole, rest = divmod(round(8 * BAR * amount / most) if most else 0, 8)
    return "█" * whole + EIGHTHS[rest].strip()


def _told(group: "UsageGroup") -> dict[str, Any]:
    told = wire(group)
    assert isinstance(told, dict)
    return told


def _day(option: str, text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text} is not a date, such as 2026-11-27.", param_hint=option) from None


def _show_limits(context: typer.Context, as_json: bool) -> None:
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
