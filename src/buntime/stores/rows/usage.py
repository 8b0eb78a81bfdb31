"""Windows of usage."""

import json

from buntime.session import State
from buntime.stores.rows.row import Row, Values
from buntime.usage import AMOUNTS, Amounts, Counters, Moment, OpenWindow, Runs, Window


def window_row(window: Window) -> Values:
    """Without its number among those of its account."""
    return {
        "account": window.account,
        "session": window.session,
        "ordinal": window.ordinal,
        "state": window.state.value,
        "began_at": window.began_at,
        "ended_at": window.ended_at,
    } | amounts_row(window.amounts)


def window_of(row: Row) -> Window:
    return Window(
        session=row["session"],
        account=row["account"],
        ordinal=row["ordinal"],
        state=State(row["state"]),
        began_at=row["began_at"],
        ended_at=row["ended_at"],
        amounts=amounts_of(row),
    )


def amounts_row(amounts: Amounts) -> Values:
    return dict(zip(AMOUNTS, amounts.values, strict=True))


def amounts_of(row: Row) -> Amounts:
    return Amounts(*(int(row[name]) for name in AMOUNTS))


def open_row(window: OpenWindow) -> Values:
    return {
        "session": window.session,
        "account": window.account,
        "ordinal": window.ordinal,
        "state": window.state.value,
        "began_at": window.began_at,
        "noted_at": window.noted.at,
        "boot": window.noted.boot,
        "steady": window.noted.steady,
        "amounts": json.dumps(window.amounts.values),
        "counters": _counters_text(window.counters) if window.counters else None,
        "disk": window.disk,
        "archived": window.archived,
        "server": window.runs.server,
        "runs": window.runs.count,
    }


def _counters_text(counters: Counters) -> str:
    return json.dumps((counters.sandbox, counters.cpu, counters.bytes_out, counters.memory))


def open_of(row: Row) -> OpenWindow:
    return OpenWindow(
        session=row["session"],
        account=row["account"],
        ordinal=row["ordinal"],
        state=State(row["state"]),
        began_at=row["began_at"],
        noted=Moment(row["noted_at"], row["boot"], row["steady"]),
        amounts=Amounts(*json.loads(row["amounts"])),
        counters=Counters(*json.loads(row["counters"])) if row["counters"] else None,
        disk=row["disk"],
        archived=row["archived"],
        runs=Runs(row["server"], row["runs"]),
    )
