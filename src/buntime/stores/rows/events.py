"""Events."""

import json

from buntime.cause import Cause
from buntime.event import AccountEvent, EventType
from buntime.ports import NumberedEvent
from buntime.stores.rows.row import Row, Values


def event_row(event: AccountEvent) -> Values:
    """Raises TypeError for data that is not JSON."""
    return {
        "id": event.id,
        "account": event.account,
        "type": event.type.value,
        "time": event.time,
        "session": event.session,
        "data": json.dumps(event.data, default=dict),
        "actor": event.cause.actor,
        "request": event.cause.request,
        "key": event.cause.key,
        "address": event.cause.address,
    }


def event_of(row: Row) -> AccountEvent:
    account, actor = row["account"], row["actor"]
    cause = Cause(actor, account if actor == "key" else "", row["request"], row["key"], row["address"])
    data = json.loads(row["data"])
    return AccountEvent(row["id"], account, EventType(row["type"]), row["time"], row["session"], data, cause)


def numbered_of(row: Row) -> NumberedEvent:
    return NumberedEvent(row["seq"], event_of(row))
