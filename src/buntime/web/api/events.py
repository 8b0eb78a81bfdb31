"""Events of an account: what happened, and who caused it."""

import re
from collections.abc import Sequence

from buntime import errors
from buntime.event import AccountEvent, EventType
from buntime.operations.events import Wanted
from buntime.ports import NumberedEvent
from buntime.scope import Scope
from buntime.web.api.ids import session_id
from buntime.web.operation import Call, Operation, Streamed, operation
from buntime.web.streaming import Out
from buntime.web.wire import events as wire
from buntime.web.wire.errors import Failure
from buntime.web.wire.shapes import given, iso

CURSOR = re.compile(r"evc_([0-9a-f]{1,15})")


def _shown_cursor(number: int) -> str:
    return f"evc_{number:x}"


def _after(call: Call[wire.EventsQuery, None]) -> int | None:
    """The number of the cursor. A client that reconnects on its own sends the id of the last event that it got."""
    field, text = ("cursor", given(call.query.cursor))
    if call.last_event_id is not None and call.query.follow:
        field, text = "Last-Event-ID", call.last_event_id
    if text is None:
        return None
    found = CURSOR.fullmatch(text)
    if found is None:
        raise errors.InvalidRequest(field, f"{field} is not a cursor of events.")
    return int(found[1], 16)


def _wanted(call: Call[wire.EventsQuery, None]) -> Wanted:
    of, what = given(call.query.session_id), given(call.query.type)
    return Wanted(None if of is None else session_id(of), None if what is None else EventType(what))


def shown(event: AccountEvent) -> wire.Event:
    cause = event.cause
    by: dict[str, str] = {"actor": cause.actor}
    if cause.key is not None and cause.address is not None:
        by |= {"keyId": cause.key, "address": cause.address}
    return wire.Event(
        event_id=event.id,
        type=event.type.value,
        session_id=event.session,
        time=iso(event.time),
        request_id=cause.request,
        data={**event.data, "by": by},
    )


async def _follow(call: Call[wire.EventsQuery, None], out: Out) -> None:
    async with call.operations.events.follow(call.caller, _wanted(call), _after(call)) as (start, pages):
        await out.begin_events()
        cursor = _shown_cursor(start)
        await out.event("ready", wire.Following(cursor=cursor), cursor)
        async for page in pages:
            for numbered in page:
                await out.event("event", shown(numbered.event), _shown_cursor(numbered.number))


@operation(
    "GET",
    "/events",
    Scope.ACCOUNT_READ,
    tag="Events",
    query=wire.EventsQuery,
    answer=wire.Events,
    errors=(errors.SessionNotFound, errors.ResourceLimitExceeded),
    streamed=Streamed(
        _follow,
        events={"ready": wire.Following, "event": wire.Event, "error": Failure},
        when=lambda call: call.query.follow,
        endless=True,
        resumes=True,
    ),
)
async def list_events(call: Call[wire.EventsQuery, None]) -> wire.Events:
    """Read what happened in your account, oldest first.

    Pass the cursor of one response in the next request to get every event exactly once. Events stay for 30 days, also
    when their session is gone, and the newest 100,000 of an account at most. A change and its event are stored
    together. `execution.completed`, `process.exited` and `resource_limit.exceeded` appear within seconds, and a power
    loss of the host may take the last second of them.

    With `follow=true` the response is a stream of Server-Sent Events: `ready`, then an `event` for each. Their ids are
    cursors, and `Last-Event-ID` works like `cursor`. It counts as an open stream of the account.
    """
    after = _after(call) or 0
    page = await call.operations.events.page(call.caller, _wanted(call), after, call.query.limit)
    return wire.Events(events=[shown(numbered.event) for numbered in page], cursor=_shown_cursor(_end(page, after)))


OPERATIONS: tuple[Operation, ...] = (list_events,)


def _end(page: Sequence[NumberedEvent], after: int) -> int:
    return page[-1].number if page else after
