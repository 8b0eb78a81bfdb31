"""What the fake's sessions used: seconds in their states, and runs. The rest is 0, because nothing really runs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from buntime_sdk._fake.answers import refuse
from buntime_sdk._fake.session import Clock, FakeSession, stamp

SECONDS = {"active": "active", "idle": "idle", "deep-sleep": "deepSleep"}  # state → field
RATES = {"active": 1.0, "idle": 0.25, "deepSleep": 0.02}
COUNTED = ("cpuSeconds", "memoryByteSeconds", "diskByteSeconds", "archivedByteSeconds", "bytesOut", "executions")
NOTHING: Mapping[str, float] = dict.fromkeys((*SECONDS.values(), *COUNTED), 0)
DAY = timedelta(days=1)
DEFAULT_DAYS = 30
CURSOR = "uwc_"


@dataclass(frozen=True, slots=True)
class Window:
    session: str
    ordinal: int
    state: str
    begin: datetime
    runs_before: int  # of the session, when the window began
    end: datetime
    runs: int = 0

    @property
    def told(self) -> dict[str, Any]:
        ids = {"windowId": f"win_{self.session.removeprefix('ses_')}_{self.ordinal}", "sessionId": self.session}
        times = {"from": _instant(self.begin), "to": _instant(self.end)}
        return {**ids, "state": self.state, **times, **self.used(self.begin, self.end)}

    def used(self, begin: datetime, end: datetime) -> dict[str, float]:
        """What of it is between two times. Runs count when the window begins."""
        seconds = max(timedelta(), min(end, self.end) - max(begin, self.begin)).total_seconds()
        runs = self.runs if begin <= self.begin <= end else 0
        return {**NOTHING, SECONDS[self.state]: seconds, "executions": runs}


class Usage:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open: dict[str, Window] = {}
        self._closed: list[Window] = []

    def look(self, sessions: Mapping[str, FakeSession]) -> None:
        """Notes the states and runs of the sessions. Closes a window where a state has changed."""
        now = self._clock()
        for session_id, window in [*self._open.items()]:
            session = sessions.get(session_id)
            end = now if session is None or session.expires is None else min(now, session.expires)
            window = replace(window, end=end)
            if session is not None and not session.is_expired and session.state == window.state:
                self._open[session_id] = replace(window, runs=session.runs_begun - window.runs_before)
                continue
            self._closed.append(window)
            del self._open[session_id]
            if session is not None and not session.is_expired:
                self._begin(session, window.ordinal + 1, window.runs_before + window.runs)
        for session in sessions.values():
            if session.id not in self._open and not session.is_expired:
                self._begin(session, 1, 0)

    def windows(self, query: Mapping[str, str]) -> dict[str, Any]:
        text = query.get("cursor", f"{CURSOR}0")
        try:
            after = int(text.removeprefix(CURSOR), 16) if text.startswith(CURSOR) else -1
        except ValueError:
            after = -1
        if not 0 <= after <= len(self._closed):
            refuse("invalid_request", "cursor is not a cursor of windows.", field="cursor")
        page = self._closed[after : after + int(query.get("limit", 100))]
        return {"windows": [window.told for window in page], "cursor": f"{CURSOR}{after + len(page):x}"}

    def get(self, query: Mapping[str, str]) -> dict[str, Any]:
        first, last = self._days(query)
        every = [*self._closed, *self._open.values()]
        of, by, limit = query.get("sessionId"), query.get("groupBy"), int(query.get("limit", 100))
        if of is not None:
            every = [window for window in every if window.session == of]
            if not every:
                refuse("session_not_found", "No session with this id.", sessionId=of)
        groups: dict[date | str, dict[str, float]] = {}
        total: dict[str, float] = {**NOTHING}
        for day in _range(first, last):
            for window in every:
                used = window.used(_midnight(day), _midnight(day + DAY))
                _add(total, used)
                if any(used.values()) and by is not None:
                    _add(groups.setdefault(day if by == "day" else window.session, {**NOTHING}), used)
        names = sorted((name for name in groups if str(name) > query.get("cursor", "")), key=str)
        page = names if by == "day" else names[:limit]
        field = "day" if by == "day" else "sessionId"
        return {
            **{"from": stamp(_midnight(first)), "to": stamp(_midnight(last + DAY)), "total": _weighted(total)},
            "groups": [{**_weighted(groups[name]), field: str(name)} for name in page],
            "cursor": str(page[-1]) if len(page) < len(names) else None,
        }

    def _begin(self, session: FakeSession, ordinal: int, runs_before: int) -> None:
        now = self._clock()
        runs = session.runs_begun - runs_before
        self._open[session.id] = Window(session.id, ordinal, session.state, now, runs_before, now, runs)

    def _days(self, query: Mapping[str, str]) -> tuple[date, date]:
        until = _time("to", query["to"]) if "to" in query else self._clock()
        last = (until - timedelta(microseconds=1)).astimezone(UTC).date()
        since = _time("from", query["from"]) if "from" in query else _midnight(last) - (DEFAULT_DAYS - 1) * DAY
        if since >= until:
            refuse("invalid_request", "from must be before to.", field="from")
        return since.astimezone(UTC).date(), last


def _time(name: str, text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        refuse("invalid_request", f"{name} must be a date or a time.", field=name)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _range(first: date, last: date) -> Iterator[date]:
    return (first + number * DAY for number in range((last - first).days + 1))


def _add(total: dict[str, float], used: Mapping[str, float]) -> None:
    for name, amount in used.items():
        total[name] += amount


def _weighted(used: Mapping[str, float]) -> dict[str, float]:
    return {**used, "weightedSeconds": sum(used[name] * rate for name, rate in RATES.items())}


def _instant(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
