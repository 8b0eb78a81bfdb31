"""What fake sessions do. A session that is awake has one measurement, of a program that does nothing."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from buntime_sdk._fake.answers import refuse
from buntime_sdk._fake.session import FakeSession, stamp

MEASURED_SECONDS = 10
PAGE = 100  # sessions
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
SHOWN = ("sessionId", "name", "state", "createdAt", "expiresAt", "lastActive", "resourceLimits")


def metrics_of(session: FakeSession, query: Mapping[str, str], now: datetime) -> dict[str, Any]:
    until = min(_time("to", query, now), now)
    since = _time("from", query, until - HOUR)
    if since >= until:
        refuse("invalid_request", "from must be before to.", field="from")
    finest = 10 if since >= now - DAY else 300
    step = -(-int(query.get("step", "10")) // finest) * finest
    at = datetime.fromtimestamp(now.timestamp() // step * step, now.tzinfo)
    is_shown = session.state == "active" and since <= now <= until
    points = [{**_idle(session, at), **_most(session, at)}] if is_shown else []
    return {"sessionId": session.id, "from": stamp(since), "to": stamp(until), "step": step, "points": points}


def measured_sessions(sessions: Sequence[FakeSession], query: Mapping[str, str]) -> dict[str, Any]:
    begin = int(query.get("offset", 0))
    page = sessions[begin : begin + int(query.get("limit", PAGE))]
    return {"sessions": [_measured(session) for session in page], "total": len(sessions)}


def _measured(session: FakeSession) -> dict[str, Any]:
    told = session.told
    metrics = _idle(session, datetime.fromisoformat(told["lastActive"])) if session.state == "active" else None
    return {**{name: told[name] for name in SHOWN}, "metrics": metrics}


def _idle(session: FakeSession, at: datetime) -> dict[str, Any]:
    return {
        **{"time": stamp(at), "seconds": MEASURED_SECONDS, "cpu": 0, "memory": 0, "disk": session.origin().size},
        **{"processes": session.told["activeProcesses"], "bytesIn": 0, "bytesOut": 0},
    }


def _most(session: FakeSession, at: datetime) -> dict[str, Any]:
    idle = _idle(session, at)
    levels = {f"{name}Max": idle[name] for name in ("cpu", "memory", "disk", "processes")}
    return {**levels, "bytesInMax": 0, "bytesOutMax": 0}


def _time(name: str, query: Mapping[str, str], default: datetime) -> datetime:
    try:
        asked = datetime.fromisoformat(query[name]) if name in query else default
        return asked if asked.tzinfo else asked.replace(tzinfo=UTC)
    except ValueError:
        return refuse("invalid_request", f"{name} must be a time with its zone.", field=name)
