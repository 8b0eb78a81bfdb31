"""The JSON shapes of events."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from buntime.web.wire.fields import SessionId, Time
from buntime.web.wire.shapes import Request, Response

MOST_EVENTS = 1000  # in one response

EventTypeName = Literal[
    "session.created",
    "session.idle",
    "session.deep_sleep",
    "session.woken",
    "session.expired",
    "session.deleted",
    "execution.completed",
    "process.exited",
    "resource_limit.exceeded",
    "snapshot.created",
    "key.created",
    "key.revoked",
    "account.created",
    "account.suspended",
    "account.resumed",
    "account.deleted",
    "webhook.created",
    "webhook.changed",
    "webhook.deleted",
    "webhook.disabled",
    "webhook.test",
]
EventCursor = Annotated[
    str, Meta(description="A place among the events: `evc_` and hexadecimal digits.", examples=["evc_2a"])
]


class EventsQuery(Request):
    session_id: SessionId | UnsetType = UNSET
    type: EventTypeName | UnsetType = UNSET
    cursor: (
        Annotated[
            EventCursor,
            Meta(
                description="Where to go on: the cursor of an earlier response. Omit it to begin with the oldest event "
                "that is kept, or with `follow` at the newest."
            ),
        ]
        | UnsetType
    ) = UNSET
    limit: Annotated[
        int, Meta(ge=1, le=MOST_EVENTS, description="The largest number of events to return. Ignored with `follow`.")
    ] = 100
    follow: Annotated[bool, Meta(description="`true`: send Server-Sent Events as they happen.")] = False


class Event(Response):
    event_id: Annotated[str, Meta(description="The event's id: `evt_` and 18 lower-case letters and digits.")]
    type: EventTypeName
    session_id: Annotated[str | None, Meta(description="The session, which may be gone. Null: it is of the account.")]
    time: Time
    request_id: Annotated[
        str | None, Meta(description="`X-Request-Id` of the request that caused it. Null: no request of the account.")
    ]
    data: Annotated[
        dict[str, Any],
        Meta(
            description="By type. `by` says who caused it: `actor` is `key`, `operator` or `server`. For a key there "
            "are also `keyId` and the `address` that the request came from."
        ),
    ]


class Events(Response):
    events: Annotated[list[Event], Meta(description="Oldest first.")]
    cursor: Annotated[EventCursor, Meta(description="Where the next response starts.")]


class Following(Response):
    """From now on every event is sent."""

    cursor: Annotated[EventCursor, Meta(description="Where the stream starts.")]
