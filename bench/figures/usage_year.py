"""Each form of GET /usage, in an account with ten thousand sessions and a year of windows.

The rows are put into the store before the server starts: a day, and a window, for each session and each day.
"""

import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime
from functools import partial

from bench.context import Context, beside, stopwatch
from bench.report import Baseline, Check, Row
from bench.statistics import summarise
from buntime.config import Config
from buntime.stores import store_file
from buntime.stores.sqlite import database
from buntime.usage import AMOUNTS, month_of

MOST_MS = 50.0
POOL_SIZE = 2
DAYS, DAY = 365, 86_400
PAGE = 100

_ROWS = """
WITH RECURSIVE
  days (day) AS (VALUES (:first) UNION ALL SELECT day + 1 FROM days WHERE day < :last),
  numbers (number) AS (VALUES (0) UNION ALL SELECT number + 1 FROM numbers WHERE number < :count - 1)
"""
_SESSION = "'ses_' || printf('%018d', number)"
_USED = ", ".join(str(1000 * place + 7) for place, _ in enumerate(AMOUNTS))
_SUMS = ", ".join(f"sum({name})" for name in AMOUNTS)
_FILL = (
    f"INSERT INTO usage_days {_ROWS} SELECT :account, {_SESSION}, day, {_USED} FROM numbers CROSS JOIN days",
    f"INSERT INTO usage_days SELECT account, '', day, {_SUMS} FROM usage_days GROUP BY account, day",
    f"""INSERT INTO usage_windows {_ROWS}
    SELECT :account, 1 + (day - :first) * :count + number, {_SESSION}, 1 + day - :first, 'active', day * 86400000,
      (day + 1) * 86400000, {_USED} FROM days CROSS JOIN numbers""",
    "INSERT INTO usage_numbers SELECT account, max(number) FROM usage_windows GROUP BY account",
)


async def measure(context: Context) -> list[Row]:
    count = context.scale.many_asleep
    async with beside(context, POOL_SIZE, fill=partial(_fill, count)) as other:
        forms, times = _forms(count), dict[str, list[float]]()
        await other.client.get("/usage")
        for _ in range(context.scale.many_calls):
            for what, (path, query) in forms.items():
                times.setdefault(what, []).append(await stopwatch(other.client.get(path, query)))
            times.setdefault("", []).append(await stopwatch(other.client.get("/account")))
    baseline = Baseline("GET /account", summarise(times[""]))
    return [
        Row(
            figure="usage-year",
            what=f"{what}: {count} sessions with a year of windows",
            measured=(measured := summarise(times[what])),
            baselines=(baseline,),
            checks=(Check("p50", measured.p50, MOST_MS, " ms"),),
        )
        for what in forms
    ]


def _forms(count: int) -> Mapping[str, tuple[str, Mapping[str, str]]]:
    """What is asked → the path and query. A year from the middle of a month to the middle of another is the slowest."""
    today = int(time.time()) // DAY
    year = {"from": _date(today - DAYS + 1)}
    middle = f"ses_{count // 2:018}"
    by_session = {"groupBy": "session", "limit": str(PAGE)}
    return {
        "total of a year": ("/usage", year),
        "total of 30 days": ("/usage", {}),
        "by day": ("/usage", {**year, "groupBy": "day"}),
        "one session by day": ("/usage", {**year, "sessionId": middle, "groupBy": "day"}),
        f"{PAGE} sessions": ("/usage", {**year, **by_session}),
        f"{PAGE} sessions from the middle": ("/usage", {**year, **by_session, "cursor": middle}),
        f"{PAGE} sessions of one day": ("/usage", {"from": _date(today - 40), "to": _date(today - 39), **by_session}),
        f"{PAGE} windows from the middle": ("/usage/windows", {"cursor": f"uwc_{count * DAYS // 2:x}"}),
        "1000 windows": ("/usage/windows", {"limit": "1000"}),
    }


def _date(day: int) -> str:
    return datetime.fromtimestamp(day * DAY, UTC).strftime("%Y-%m-%d")


def _fill(count: int, config: Config) -> None:
    today = int(time.time()) // DAY
    with closing(database.connect(store_file(config))) as store:
        store.execute("PRAGMA synchronous = OFF")
        (account,) = store.execute("SELECT id FROM accounts").fetchone()
        asked = {"account": account, "count": count, "first": today - DAYS + 1, "last": today}
        with database.transaction(store):
            for statement in _FILL:
                store.execute(statement, asked if ":account" in statement else {})
            _add_months(store, today)


def _add_months(store: sqlite3.Connection, today: int) -> None:
    days = [(day, month_of(day)) for day in range(today - DAYS + 1, today + 1)]
    store.execute("CREATE TEMP TABLE month_of (day INTEGER PRIMARY KEY, month INTEGER)")
    store.executemany("INSERT INTO month_of VALUES (?, ?)", days)
    store.execute(
        f"INSERT INTO usage_months SELECT account, month, session, {_SUMS} "
        "FROM usage_days JOIN month_of USING (day) WHERE session <> '' GROUP BY account, month, session"
    )
