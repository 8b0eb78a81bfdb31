"""The JSON shapes of usage."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType, field

from buntime.web.wire.fields import Limit, SessionId, Time
from buntime.web.wire.sessions import SessionState
from buntime.web.wire.shapes import Request, Response

MOST_WINDOWS = 1000  # in one response

Seconds = Annotated[float, Meta(description="Seconds in this state.")]
Cpu = Annotated[float, Meta(description="Processor time of the session's programs, in seconds.")]
Memory = Annotated[
    float, Meta(description="Bytes of memory times seconds, of samples: one a minute, and one at each change of state.")
]
Disk = Annotated[float, Meta(description="Bytes on the host's disk times seconds.")]
Archived = Annotated[float, Meta(description="Bytes in the archive times seconds.")]
BytesOut = Annotated[
    int,
    Meta(
        description="Bytes that left the session: to visitors of its previews too, and to the server, which reads the "
        "output of runs, files and its state."
    ),
]
Executions = Annotated[int, Meta(description="Runs that have begun.")]
Instant = Annotated[
    str, Meta(extra_json_schema={"format": "date-time"}, description="UTC in milliseconds, ending in `Z`.")
]
WindowCursor = Annotated[
    str, Meta(description="A place among the windows: `uwc_` and hexadecimal digits.", examples=["uwc_2a"])
]


class UsageQuery(Request):
    from_: (
        Annotated[
            str,
            Meta(
                description="A time, such as `2024-01-19T10:30:00Z`, or a date. Rounded down to its day in UTC. "
                "Default: 30 days that end with `to`."
            ),
        ]
        | UnsetType
    ) = field(default=UNSET, name="from")
    to: (
        Annotated[
            str,
            Meta(
                description="A time, or a date for its midnight in UTC. Rounded up to the end of its day. "
                "Default: now. At most 400 days after `from`."
            ),
        ]
        | UnsetType
    ) = UNSET
    session_id: Annotated[SessionId, Meta(description="Only this session, which may be gone.")] | UnsetType = UNSET
    group_by: (
        Annotated[Literal["session", "day"], Meta(description="What `groups` has: sessions by id, or days in order.")]
        | UnsetType
    ) = UNSET
    limit: Limit = 100
    cursor: (
        Annotated[str, Meta(description="With `groupBy=session`: the cursor of the response before.")] | UnsetType
    ) = UNSET


class UsageTotal(Response):
    """What was used."""

    active: Seconds
    idle: Seconds
    deep_sleep: Seconds
    cpu_seconds: Cpu
    memory_byte_seconds: Memory
    disk_byte_seconds: Disk
    archived_byte_seconds: Archived
    bytes_out: BytesOut
    executions: Executions
    weighted_seconds: Annotated[
        float, Meta(description="The seconds in the three states, each times the rate of your plan as it is now.")
    ]


class UsageGroup(UsageTotal):
    """What one session used, or all on one day."""

    session_id: Annotated[str, Meta(description="With `groupBy=session`.")] | UnsetType = UNSET
    day: (
        Annotated[str, Meta(extra_json_schema={"format": "date"}, description="With `groupBy=day`: the date, in UTC.")]
        | UnsetType
    ) = UNSET


class Usage(Response):
    from_: Annotated[Time, Meta(description="The beginning of the first day that was counted.")] = field(name="from")
    to: Annotated[Time, Meta(description="The end of the last day that was counted.")]
    total: Annotated[UsageTotal, Meta(description="Of all sessions, or of `sessionId`; not of this page alone.")]
    groups: Annotated[list[UsageGroup], Meta(description="Empty without `groupBy`. Days without use are left out.")]
    cursor: Annotated[
        str | None,
        Meta(description="Where the next page of sessions begins. Null: there are no more. A page may be empty."),
    ]


class UsageWindowsQuery(Request):
    cursor: (
        Annotated[
            WindowCursor,
            Meta(
                description="Where to go on: the cursor of an earlier response. Omit it to begin with the oldest "
                "window that is kept."
            ),
        ]
        | UnsetType
    ) = UNSET
    limit: Annotated[int, Meta(ge=1, le=MOST_WINDOWS, description="The largest number of windows to return.")] = 100


class UsageWindow(Response):
    """What a session used while it was in one state. It never changes."""

    window_id: Annotated[
        str,
        Meta(description="The window's id: `win_` and more. Used once, unless the operator puts back an older store."),
    ]
    session_id: Annotated[str, Meta(description="The session, which may be gone.")]
    state: SessionState
    from_: Annotated[Instant, Meta(description="What the host's clock said when the window began.")] = field(
        name="from"
    )
    to: Annotated[
        Instant,
        Meta(
            description="What the clock said at its end, where the session's next window begins. Bill by the seconds, "
            "because clocks are set."
        ),
    ]
    active: Seconds
    idle: Seconds
    deep_sleep: Seconds
    cpu_seconds: Cpu
    memory_byte_seconds: Memory
    disk_byte_seconds: Disk
    archived_byte_seconds: Archived
    bytes_out: BytesOut
    executions: Executions


class UsageWindows(Response):
    windows: Annotated[list[UsageWindow], Meta(description="In the order in which they were closed.")]
    cursor: Annotated[WindowCursor, Meta(description="Where the next response starts.")]
