"""What sessions did over time: processor time, memory, disk, network and processes. Pure.

An active session is measured every `INTERVAL` seconds. A measurement has what was used since the one before, and the
levels at its end. A *point* has the same of a step of time: sums, means and the most of any interval in it. Nothing is
measured while a session sleeps, so there are no points then.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from buntime.errors import InvalidRequest
from buntime.usage import Counters

INTERVAL = 10  # seconds: the finest step
FINE_SECONDS = 86_400  # for so long, steps of INTERVAL are kept
COARSE = 300  # seconds: the finest step of what is older
KEPT_SECONDS = 7 * 86_400
DEFAULT_SECONDS = 3600  # that are shown if nobody says from when
DEFAULT_POINTS = 500  # at most, if nobody says the step
MOST_POINTS = (FINE_SECONDS + COARSE) // INTERVAL + 1  # of any answer


@dataclass(frozen=True, slots=True)
class Counted:
    """What the kernel says of a running sandbox now."""

    counters: Counters
    bytes_in: int  # since it was made
    processes: int
    disk: int | None  # bytes of the volume; None: not known now


@dataclass(frozen=True, slots=True)
class Measurement:
    """What a session used for some time, and what it had in the end."""

    at: int  # Unix seconds of its end
    span: int  # milliseconds, at least 1
    cpu: int  # microseconds
    bytes_in: int
    bytes_out: int
    memory: int  # bytes
    disk: int  # bytes
    processes: int

    def and_then(self, later: Self) -> Self:
        """Both together, as one."""
        return type(self)(
            at=later.at,
            span=self.span + later.span,
            cpu=self.cpu + later.cpu,
            bytes_in=self.bytes_in + later.bytes_in,
            bytes_out=self.bytes_out + later.bytes_out,
            memory=later.memory,
            disk=later.disk,
            processes=later.processes,
        )


def measured(before: Counted, now: Counted, at: int, span: int) -> Measurement | None:
    """None where the counters are those of another sandbox, which started anew, or where no time has passed."""
    old, new = before.counters, now.counters
    if old.sandbox != new.sandbox or span <= 0:
        return None
    return Measurement(
        at=at,
        span=span,
        cpu=max(0, new.cpu - old.cpu),
        bytes_in=max(0, now.bytes_in - before.bytes_in),
        bytes_out=max(0, new.bytes_out - old.bytes_out),
        memory=new.memory,
        disk=now.disk if now.disk is not None else before.disk or 0,
        processes=now.processes,
    )


@dataclass(frozen=True, slots=True)
class Point:
    """What is known of a step of time. Points of the same session can be added."""

    at: int  # Unix seconds where the step begins
    span: int  # milliseconds that were measured
    cpu: int  # microseconds
    bytes_in: int
    bytes_out: int
    memory: int  # bytes times milliseconds, like the next one
    disk: int
    processes: int  # times milliseconds
    most_cpu: int  # thousandths of a core, in the interval with the most
    most_bytes_in: int  # a second
    most_bytes_out: int
    most_memory: int  # bytes
    most_disk: int
    most_processes: int

    def __add__(self, other: Self) -> Self:
        """The earlier of the two says where the step begins."""
        return type(self)(
            min(self.at, other.at),
            self.span + other.span,
            self.cpu + other.cpu,
            self.bytes_in + other.bytes_in,
            self.bytes_out + other.bytes_out,
            self.memory + other.memory,
            self.disk + other.disk,
            self.processes + other.processes,
            max(self.most_cpu, other.most_cpu),
            max(self.most_bytes_in, other.most_bytes_in),
            max(self.most_bytes_out, other.most_bytes_out),
            max(self.most_memory, other.most_memory),
            max(self.most_disk, other.most_disk),
            max(self.most_processes, other.most_processes),
        )


def point_of(one: Measurement, step: int) -> Point:
    """The measurement as the only one of its step."""
    return Point(
        at=one.at // step * step,
        span=one.span,
        cpu=one.cpu,
        bytes_in=one.bytes_in,
        bytes_out=one.bytes_out,
        memory=one.memory * one.span,
        disk=one.disk * one.span,
        processes=one.processes * one.span,
        most_cpu=one.cpu // one.span,  # microseconds a millisecond are thousandths
        most_bytes_in=one.bytes_in * 1000 // one.span,
        most_bytes_out=one.bytes_out * 1000 // one.span,
        most_memory=one.memory,
        most_disk=one.disk,
        most_processes=one.processes,
    )


def in_steps(points: Iterable[Point], step: int) -> list[Point]:
    """The points added up in steps of so many seconds, in order. Steps in which nothing was measured are left out."""
    found: dict[int, Point] = {}
    for point in points:
        at = point.at // step * step
        known = found.get(at)
        found[at] = point if known is None else known + point
    return [_at(found[at], at) for at in sorted(found)]


def _at(point: Point, at: int) -> Point:
    return point if point.at == at else point + Point(at, *(0,) * 13)


def better(one: Point | None, other: Point | None) -> Point | None:
    """Of two records of the same step, the one that saw more of it."""
    if one is None or other is None:
        return one or other
    return one if one.span >= other.span else other


@dataclass(frozen=True, slots=True)
class Steps:
    """Which steps are asked for."""

    since: int  # Unix seconds
    until: int
    step: int  # seconds

    @property
    def first(self) -> int:
        """Where the first step begins."""
        return self.since // self.step * self.step


def steps_of(now: int, since: int | None, until: int | None, step: int | None) -> Steps:
    """What there is of what is asked for: not more than is kept, and no finer. By default, the hour until now in at
    most `DEFAULT_POINTS` steps. Raises InvalidRequest."""
    end = now if until is None else until
    begin = end - DEFAULT_SECONDS if since is None else since
    if begin >= end:
        raise InvalidRequest("from", "from must be before to.")
    end = min(end, now)
    begin = min(max(begin, now - KEPT_SECONDS), end)
    finest = INTERVAL if begin >= now - FINE_SECONDS - COARSE else COARSE  # a request takes its time to arrive
    wanted = -((begin - end) // DEFAULT_POINTS) if step is None else step
    return Steps(begin, end, max(1, -(-wanted // finest)) * finest)


def points_of(measurements: Sequence[Measurement], step: int) -> list[Point]:
    return in_steps((point_of(one, step) for one in measurements), step)
