"""The table of `buntime top`: its columns, its order, its sums. Pure."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from buntime_cli.commands.showing import plain, size, span

if TYPE_CHECKING:
    from buntime_sdk import MeasuredSession, Metrics

HEAD = ("SESSION", "NAME", "STATE", "CPU", "MEMORY", "DISK", "IN/S", "OUT/S", "PROCS", "AGE")
NOTHING = "-"  # of a session that sleeps
STATES = ("active", "idle", "deep-sleep")

ORDERS: "Mapping[str, Callable[[Metrics], float]]" = {
    "cpu": lambda now: now.cpu,
    "memory": lambda now: now.memory,
    "disk": lambda now: now.disk,
    "network": lambda now: (now.bytes_in + now.bytes_out) / max(now.seconds, 0.001),
    "processes": lambda now: now.processes,
}
AGE = "age"
SORTS = (*ORDERS, AGE)


def ordered(sessions: "Sequence[MeasuredSession]", sort: str, *, reverse: bool = False) -> "list[MeasuredSession]":
    """The largest first, or the oldest. Sessions that sleep come last. `sort`: one of SORTS."""
    turn = 1 if reverse else -1
    by_age = sorted(sessions, key=lambda one: (-turn * one.created_at.timestamp(), one.session_id))
    if sort == AGE:
        return by_age
    order = ORDERS[sort]
    return sorted(by_age, key=lambda one: (one.metrics is None, turn * order(one.metrics) if one.metrics else 0))


def row_of(session: "MeasuredSession", now: datetime) -> tuple[str, ...]:
    age = span((now - session.created_at).total_seconds())
    named = session.session_id, plain(session.name or ""), session.state
    did = session.metrics
    if did is None:
        return (*named, *(NOTHING,) * 6, age)
    seconds = max(did.seconds, 0.001)
    rates = size(did.bytes_in / seconds), size(did.bytes_out / seconds)
    return (*named, f"{did.cpu:.2f}", size(did.memory), size(did.disk), *rates, f"{did.processes:g}", age)


def padded(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line for each row. Numbers are on the right of their columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return ["  ".join(_cell(row[column], widths[column], column) for column in range(len(HEAD))) for row in rows]


def _cell(text: str, width: int, column: int) -> str:
    return text.ljust(width) if column < HEAD.index("CPU") else text.rjust(width)


def summed(sessions: "Sequence[MeasuredSession]") -> str:
    counts = [f"{sum(one.state == state for one in sessions)} {state}" for state in STATES]
    did = [one.metrics for one in sessions if one.metrics is not None]
    used = f"CPU {sum(one.cpu for one in did):.2f}  memory {size(sum(one.memory for one in did))}"
    return f"{len(sessions)} session{'' if len(sessions) == 1 else 's'}: {', '.join(counts)}.  {used}"
