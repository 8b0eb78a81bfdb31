"""What an account has used: sums, and the closed windows that they are made of."""

import re
from datetime import UTC, datetime
from typing import Any

from msgspec import UNSET

from buntime import errors
from buntime.operations.usage import DAY, Days, Total, weighted_seconds
from buntime.plan import Plan
from buntime.scope import Scope
from buntime.usage import Amounts, Window
from buntime.web.api.ids import session_id
from buntime.web.api.times import asked_time
from buntime.web.exchange import SESSION_ID
from buntime.web.operation import Call, operation
from buntime.web.wire import usage as wire
from buntime.web.wire.shapes import given, instant, iso, number

CURSOR = re.compile(r"uwc_([0-9a-f]{1,15})")
EXACT = 1 << 53  # from here on, JSON has numbers with an exponent
KIB = 1024


@operation(
    "GET",
    "/usage",
    Scope.ACCOUNT_READ,
    tag="Usage",
    query=wire.UsageQuery,
    answer=wire.Usage,
    errors=(errors.SessionNotFound,),
)
async def get_usage(call: Call[wire.UsageQuery, None]) -> wire.Usage:
    """Add up what your account used, or one of its sessions.

    The kernel counts it, for whole days in UTC. It is at most a minute behind for an awake session, and an hour for one
    in deep sleep. Sessions that are gone count too. `groupBy` adds what each day or each session has of the total.
    Sessions come in pages, by id. Usage is kept for at least 13 months.
    """
    query, usage = call.query, call.operations.usage
    since, until = given(query.from_), given(query.to)
    days = usage.days(
        None if since is None else asked_time("from", since), None if until is None else asked_time("to", until)
    )
    of = None if query.session_id is UNSET else session_id(query.session_id)
    if query.cursor is not UNSET and (query.group_by != "session" or of is not None):
        raise errors.InvalidRequest("cursor", "cursor is for groupBy=session without sessionId.")
    if query.group_by == "session":
        return _shown(await usage.by_session(call.caller, days, of, _after(query), query.limit), days, call.caller.plan)
    total = await usage.by_day(call.caller, days, of)
    return _shown(total if query.group_by == "day" else Total(total.amounts), days, call.caller.plan)


@operation(
    "GET",
    "/usage/windows",
    Scope.ACCOUNT_READ,
    tag="Usage",
    query=wire.UsageWindowsQuery,
    answer=wire.UsageWindows,
)
async def list_usage_windows(call: Call[wire.UsageWindowsQuery, None]) -> wire.UsageWindows:
    """Read the closed windows of usage, oldest first.

    A window is what a session used in one state. It closes at each change of state, each hour while the session is
    awake, and each day in deep sleep. It never changes. Pass the cursor of one response in the next request to get
    every window exactly once. Windows are kept for 13 months, also when their session is gone.
    """
    cursor = given(call.query.cursor)
    found = None if cursor is None else CURSOR.fullmatch(cursor)
    if cursor is not None and found is None:
        raise errors.InvalidRequest("cursor", "cursor is not a cursor of windows.")
    after = int(found[1], 16) if found else 0
    windows, place = await call.operations.usage.windows(call.caller, after, call.query.limit)
    return wire.UsageWindows(windows=[_shown_window(window) for window in windows], cursor=f"uwc_{place:x}")


OPERATIONS = (get_usage, list_usage_windows)


def _after(query: wire.UsageQuery) -> str:
    after = given(query.cursor)
    if after is not None and not SESSION_ID.fullmatch(after):
        raise errors.InvalidRequest("cursor", "cursor is not a cursor of usage by session.")
    return after or ""


def _shown(total: Total, days: Days, plan: Plan) -> wire.Usage:
    return wire.Usage(
        from_=iso(days.first * DAY),
        to=iso((days.last + 1) * DAY),
        total=wire.UsageTotal(**_fields(total.amounts), weighted_seconds=_weighted(total.amounts, plan)),
        groups=[
            wire.UsageGroup(
                **_fields(used),
                weighted_seconds=_weighted(used, plan),
                session_id=group if isinstance(group, str) else UNSET,
                day=_date(group) if isinstance(group, int) else UNSET,
            )
            for group, used in total.groups
        ],
        cursor=total.after,
    )


def _shown_window(window: Window) -> wire.UsageWindow:
    return wire.UsageWindow(
        window_id=window.id,
        session_id=window.session,
        state=window.state.value,  # type: ignore[arg-type]  # DELETING sessions have no window
        from_=instant(window.began_at),
        to=instant(window.ended_at),
        **_fields(window.amounts),
    )


def _fields(used: Amounts) -> dict[str, Any]:
    return {
        "active": number(used.active / 1000),
        "idle": number(used.idle / 1000),
        "deep_sleep": number(used.deep_sleep / 1000),
        "cpu_seconds": number(used.cpu / 1_000_000),
        "memory_byte_seconds": _bytes(used.memory),
        "disk_byte_seconds": _bytes(used.disk),
        "archived_byte_seconds": _bytes(used.archived),
        "bytes_out": used.bytes_out,
        "executions": used.executions,
    }


def _bytes(kib: int) -> float:
    """A number that every reader of JSON holds: most have no integers beyond 2⁵³."""
    return kib * KIB if kib * KIB < EXACT else float(kib * KIB)


def _weighted(used: Amounts, plan: Plan) -> float:
    return number(weighted_seconds(used, plan))


def _date(day: int) -> str:
    return datetime.fromtimestamp(day * DAY, UTC).strftime("%Y-%m-%d")
