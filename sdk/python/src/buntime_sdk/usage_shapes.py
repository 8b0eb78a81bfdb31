"""What an account used, as plain values. Times are aware datetimes in UTC."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from buntime_sdk.arguments import refusal
from buntime_sdk.from_json import each, one_or_none, read_by, time_or_none
from buntime_sdk.shapes import SessionState


def date_or_none(told: str | None) -> date | None:
    return None if told is None else date.fromisoformat(told)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageAmounts:
    """`active`, `idle`, `deep_sleep`: seconds in this state. `cpu_seconds`: processor time of programs.
    `memory_byte_seconds`, `disk_byte_seconds`, `archived_byte_seconds`: bytes times seconds. `bytes_out`: that left
    the session, to the server too. `executions`: runs that have begun.
    """

    active: float
    idle: float
    deep_sleep: float
    cpu_seconds: float
    memory_byte_seconds: float
    disk_byte_seconds: float
    archived_byte_seconds: float
    bytes_out: int
    executions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageTotal(UsageAmounts):
    """`weighted_seconds`: the seconds in the three states, each times the rate of the account's plan."""

    weighted_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageGroup(UsageTotal):
    """What one session used (`session_id`), or all on one day (`day`, in UTC)."""

    session_id: str | None = None
    day: date | None = read_by(date_or_none, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageReport:
    """What was used in the whole days from `since` to `until`. `groups`: by day or session, if you asked for them.
    `cursor`: where the next page of sessions begins; None if there are no more.
    """

    since: datetime = read_by(time_or_none, "from")
    until: datetime = read_by(time_or_none, "to")
    total: UsageTotal = read_by(one_or_none(UsageTotal))
    groups: Sequence[UsageGroup] = read_by(each(UsageGroup))
    cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageWindow(UsageAmounts):
    """What a session used while it was in one state. It never changes. `session_id`: the session, which may be gone.
    `since`, `until`: what the host's clock said, which may have been set meanwhile: bill by the seconds.
    """

    window_id: str
    session_id: str
    state: SessionState
    since: datetime = read_by(time_or_none, "from")
    until: datetime = read_by(time_or_none, "to")


def time_text(name: str, value: Any) -> str | None:
    """A time or date as a query has it. Raises InvalidRequest."""
    if isinstance(value, datetime) and value.tzinfo is None:
        raise refusal(name, f"{name} must have a time zone, such as datetime.now(UTC).")
    if isinstance(value, date):  # a datetime too
        return value.isoformat()
    if value is None or isinstance(value, str):
        return value
    raise refusal(name, f"{name} must be a datetime, a date or text, not {type(value).__name__}.")
