"""The JSON shapes of what sessions do over time."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType, field

from buntime.web.wire.fields import Offset, Time
from buntime.web.wire.sessions import End, ResourceLimits, SessionState
from buntime.web.wire.shapes import Request, Response

MOST_SESSIONS = 1000  # in one response


class MetricsQuery(Request):
    from_: (
        Annotated[
            str,
            Meta(
                description="Where to begin: a time, such as `2024-01-19T10:30:00Z`, or a date. Default: an hour "
                "before `to`. At most a week ago."
            ),
        ]
        | UnsetType
    ) = field(default=UNSET, name="from")
    to: Annotated[str, Meta(description="Where to end. Default: now.")] | UnsetType = UNSET
    step: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=604_800,
                description="Seconds of each point, rounded up to a multiple of 10, or of 300 if `from` is more than "
                "a day ago. Omit it for at most 500 points.",
            ),
        ]
        | UnsetType
    ) = UNSET


class Metrics(Response):
    """What a session did."""

    time: Annotated[Time, Meta(description="Of a point: where its step begins. Else: when it was measured.")]
    seconds: Annotated[float, Meta(description="How many seconds were measured: less than a step if it slept.")]
    cpu: Annotated[float, Meta(description="Cores, on average over those seconds.")]
    memory: Annotated[int, Meta(description="Bytes, with cached files that the kernel counts for it.")]
    disk: Annotated[int, Meta(description="Bytes that its disk limit counts, as of up to 30 seconds before.")]
    processes: Annotated[float, Meta(description="Processes of runs, contexts, terminals and in the background.")]
    bytes_in: Annotated[int, Meta(description="Bytes that it received in those seconds.")]
    bytes_out: Annotated[int, Meta(description="Bytes that left it in those seconds, to the server too.")]


class MetricsPoint(Metrics):
    """What a session did in one step. The most are those of the 10 seconds with the most in it."""

    cpu_max: Annotated[float, Meta(description="Cores.")]
    memory_max: Annotated[int, Meta(description="Bytes.")]
    disk_max: Annotated[int, Meta(description="Bytes.")]
    processes_max: int
    bytes_in_max: Annotated[int, Meta(description="Bytes a second.")]
    bytes_out_max: Annotated[int, Meta(description="Bytes a second.")]


class SessionMetrics(Response):
    session_id: str
    from_: Annotated[Time, Meta(description="As asked, but not before what is kept.")] = field(name="from")
    to: Annotated[Time, Meta(description="As asked, but not in the future.")]
    step: Annotated[int, Meta(description="Seconds of each point. Steps begin at multiples of it in Unix time.")]
    points: Annotated[
        list[MetricsPoint],
        Meta(description="Oldest first, at most 8,671. A step in which the session did not run has no point."),
    ]


class LatestMetricsQuery(Request):
    state: Annotated[SessionState, Meta(description="Only sessions in this state.")] | UnsetType = UNSET
    name: Annotated[str, Meta(description="Only the session of this name.")] | UnsetType = UNSET
    limit: Annotated[int, Meta(ge=1, le=MOST_SESSIONS, description="The largest number of entries to return.")] = 100
    offset: Offset = 0


class MeasuredSession(Response):
    session_id: str
    name: Annotated[str | None, Meta(description="Null if it has none.")]
    state: SessionState
    created_at: Time
    expires_at: End
    last_active: Time
    resource_limits: ResourceLimits
    metrics: Annotated[
        Metrics | None,
        Meta(description="Its newest measurement. Null if it sleeps, or has woken within the last 12 seconds."),
    ]


class LatestMetrics(Response):
    sessions: list[MeasuredSession]
    total: int
