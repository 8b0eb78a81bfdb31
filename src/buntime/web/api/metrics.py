"""What sessions do over time."""

import asyncio
from collections.abc import Sequence

from buntime import errors, session
from buntime.measurement import Measurement, Point
from buntime.scope import Scope
from buntime.web.api.ids import session_id
from buntime.web.api.session_shapes import end_of, resource_limits
from buntime.web.api.times import asked_time
from buntime.web.operation import Call, Operation, operation
from buntime.web.wire import metrics as wire
from buntime.web.wire.shapes import given, iso, number


@operation(
    "GET",
    "/sessions/{sessionId}/metrics",
    Scope.SESSIONS_READ,
    tag="Metrics",
    query=wire.MetricsQuery,
    answer=wire.SessionMetrics,
    errors=(errors.SessionNotFound,),
)
async def get_session_metrics(call: Call[wire.MetricsQuery, None]) -> wire.SessionMetrics:
    """Get what a session did over time.

    While a session is active, the server reads the kernel's counters every 10 seconds. It keeps them for 24 hours, and
    for a week in steps of 5 minutes. A session that sleeps is not measured, so there are no points then. The history
    goes with the session. Up to 1 second after a wake and up to 10 seconds before a deep sleep are in no point. This
    does not wake the session and does not count as activity.
    """
    query = call.query
    since, until = given(query.from_), given(query.to)
    found = await call.operations.measurements.of_session(
        call.caller,
        session_id(call.path["sessionId"]),
        None if since is None else asked_time("from", since),
        None if until is None else asked_time("to", until),
        given(query.step),
    )
    points = await asyncio.to_thread(_points, found.points)  # thousands take tens of milliseconds
    return wire.SessionMetrics(
        session_id=found.session.id,
        from_=iso(found.steps.since),
        to=iso(found.steps.until),
        step=found.steps.step,
        points=points,
    )


@operation(
    "GET",
    "/metrics/sessions",
    Scope.SESSIONS_READ,
    tag="Metrics",
    query=wire.LatestMetricsQuery,
    filters=True,
    answer=wire.LatestMetrics,
)
async def list_latest_metrics(call: Call[wire.LatestMetricsQuery, None]) -> wire.LatestMetrics:
    """List the account's sessions with what they do now, newest first.

    Each active session has its newest measurement, which is at most about 10 seconds old. `metadata.KEY=VALUE` selects
    sessions as in `GET /sessions`. One request can return 1,000 sessions: the server looks inside none of them, and
    wakes none.
    """
    query = call.query
    found, total = await call.operations.measurements.latest(
        call.caller,
        state=session.State(query.state) if query.state else None,
        name=given(query.name),
        metadata=call.filters,
        limit=query.limit,
        offset=query.offset,
    )
    return wire.LatestMetrics(sessions=[_measured(*pair) for pair in found], total=total)


OPERATIONS: tuple[Operation, ...] = (get_session_metrics, list_latest_metrics)


def _points(points: Sequence[Point]) -> list[wire.MetricsPoint]:
    return [_point(point) for point in points]


def _point(point: Point) -> wire.MetricsPoint:
    span = point.span
    return wire.MetricsPoint(
        time=iso(point.at),
        seconds=number(span / 1000),
        cpu=round(point.cpu / span / 1000, 3),
        memory=point.memory // span,
        disk=point.disk // span,
        processes=number(round(point.processes / span, 2)),
        bytes_in=point.bytes_in,
        bytes_out=point.bytes_out,
        cpu_max=round(point.most_cpu / 1000, 3),
        memory_max=point.most_memory,
        disk_max=point.most_disk,
        processes_max=point.most_processes,
        bytes_in_max=point.most_bytes_in,
        bytes_out_max=point.most_bytes_out,
    )


def _measured(made: session.Session, latest: Measurement | None) -> wire.MeasuredSession:
    return wire.MeasuredSession(
        session_id=made.id,
        name=made.name,
        state=made.state.value,  # type: ignore[arg-type]  # DELETING sessions are never listed
        created_at=iso(made.created_at),
        expires_at=end_of(made),
        last_active=iso(made.last_active),
        resource_limits=resource_limits(made),
        metrics=None if latest is None else _metrics(latest),
    )


def _metrics(one: Measurement) -> wire.Metrics:
    return wire.Metrics(
        time=iso(one.at),
        seconds=number(one.span / 1000),
        cpu=round(one.cpu / one.span / 1000, 3),
        memory=one.memory,
        disk=one.disk,
        processes=one.processes,
        bytes_in=one.bytes_in,
        bytes_out=one.bytes_out,
    )
