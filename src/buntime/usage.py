"""What sessions use, in windows that never change once they are closed. Pure.

A session has one open window at a time. A *note* adds what was used since the last note to it, and the store keeps the
result. So a server that is killed loses at most what was used since the last note. A window closes where the next one
opens, at each change of state and when it is long.

Two clocks are read. `Moment.steady` measures how long something took: nobody can set it. `Moment.at` says when.

The kernel's counters may start anew: another sandbox serves the session, or the host has started again. A counter of
another sandbox is never compared with that of the one before. Those of one sandbox only grow: two readings may be
stored in another order than they were made, and then the lower one adds nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date, timedelta
from types import MappingProxyType
from typing import Self

from buntime.session import Session, State

DAY_MS = 86_400_000
KEPT_DAYS = 396  # 13 months
LONGEST_OFF_MS = 31 * DAY_MS  # between two boots: a clock that is wrong by years must not bill for them
NOTE_SECONDS: Mapping[State, int] = MappingProxyType({State.ACTIVE: 60, State.IDLE: 60, State.DEEP_SLEEP: 3600})
LONGEST_SECONDS: Mapping[State, int] = MappingProxyType({State.ACTIVE: 3600, State.IDLE: 3600, State.DEEP_SLEEP: 86400})
_KIB_SECOND = 1024 * 1000  # bytes times milliseconds
_FIRST_DAY = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment, by two clocks."""

    at: int  # Unix milliseconds, by a clock that may be set
    boot: str  # the boot of the host that `steady` counts from
    steady: int  # milliseconds since then, with those in which the host itself slept

    def since(self, before: Self) -> int:
        """Milliseconds since an earlier moment, never negative. Between two boots, the clock that may be set counts, up
        to `LONGEST_OFF_MS`."""
        if self.boot == before.boot:
            return max(0, self.steady - before.steady)
        return min(max(0, self.at - before.at), LONGEST_OFF_MS)

    def left_out(self, before: Self) -> int:
        """Milliseconds between two boots that `since` does not count."""
        return 0 if self.boot == before.boot else max(0, self.at - before.at - LONGEST_OFF_MS)

    def is_before(self, other: Self) -> bool:
        return self.boot == other.boot and self.steady < other.steady


@dataclass(frozen=True, slots=True)
class Counters:
    """What the kernel has counted for one sandbox since it was made, and its memory now."""

    sandbox: str  # id
    cpu: int  # microseconds
    bytes_out: int
    memory: int  # bytes

    def after(self, before: Self | None) -> Self:
        """What is known of the sandbox now, where `before` was known already."""
        if before is None or before.sandbox != self.sandbox:
            return self
        return replace(self, cpu=max(self.cpu, before.cpu), bytes_out=max(self.bytes_out, before.bytes_out))


@dataclass(frozen=True, slots=True)
class Runs:
    """How many executions of the session one run of the server has counted."""

    server: str  # names this run of the server
    count: int


NO_RUNS = Runs("", 0)


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read of one session at one moment. None: not read."""

    moment: Moment
    counters: Counters | None = None  # of the sandbox that has served the session until now
    next: Counters | None = None  # of the one that serves it from now on, where that is another one
    disk: int | None = None  # bytes of its volume on this host
    runs: Runs | None = None

    def of(self, sandbox: str) -> Self:
        """The reading for a session that this sandbox serves by now: counters of another one say nothing."""
        return self if self.counters is None or self.counters.sandbox == sandbox else replace(self, counters=None)


@dataclass(frozen=True, slots=True)
class Amounts:
    """What was used. Memory, disk and archive are KiB times seconds: bytes would not fit into 64 bits."""

    active: int = 0  # milliseconds in this state
    idle: int = 0
    deep_sleep: int = 0
    cpu: int = 0  # microseconds
    memory: int = 0
    disk: int = 0
    archived: int = 0
    bytes_out: int = 0
    executions: int = 0

    @property
    def values(self) -> tuple[int, ...]:
        return tuple(getattr(self, name) for name in AMOUNTS)

    @property
    def milliseconds(self) -> int:
        return self.active + self.idle + self.deep_sleep

    def __add__(self, other: Self) -> Self:
        return type(self)(*map(int.__add__, self.values, other.values))

    def __sub__(self, other: Self) -> Self:
        return type(self)(*map(int.__sub__, self.values, other.values))

    def share(self, part: int, whole: int) -> Self:
        """`part` / `whole` of each, rounded down."""
        return type(self)(*(value * part // whole for value in self.values))


AMOUNTS = tuple(field.name for field in fields(Amounts))
NOTHING = Amounts()


@dataclass(frozen=True, slots=True)
class Window:
    """A closed window. `began_at` and `ended_at` are what the clock said, which may have been set in between: the
    amounts, and not these two, say for how long the session was in its state."""

    session: str
    account: str
    ordinal: int  # 1 for the session's first window
    state: State
    began_at: int  # Unix milliseconds
    ended_at: int  # never before `began_at`
    amounts: Amounts

    @property
    def id(self) -> str:
        return f"win_{self.session.removeprefix('ses_')}_{self.ordinal}"


@dataclass(frozen=True, slots=True)
class OpenWindow:
    """A session's open window, with what was noted of it."""

    session: str
    account: str
    ordinal: int
    state: State
    began_at: int  # Unix milliseconds
    noted: Moment  # the last note, or the opening
    amounts: Amounts = NOTHING
    counters: Counters | None = None  # as of the last note that had them
    disk: int = 0  # bytes
    archived: int = 0
    runs: Runs = NO_RUNS

    def note(self, reading: Reading) -> Self:
        """The window with what was used since the last note. A reading from before that note adds nothing."""
        if reading.moment.is_before(self.noted):
            return self
        return replace(
            self,
            noted=reading.moment,
            amounts=self.amounts + _used(self, reading),
            counters=reading.counters.after(self.counters) if reading.counters else self.counters,
            disk=self.disk if reading.disk is None else reading.disk,
            runs=_later(self.runs, reading.runs),
        )

    def close(self) -> Window:
        """The window as of its last note."""
        ended_at = max(self.began_at, self.noted.at)
        return Window(self.session, self.account, self.ordinal, self.state, self.began_at, ended_at, self.amounts)

    def following(self, state: State, next_counters: Counters | None = None) -> Self:
        """The window that opens where this one closes. `next_counters`: of the sandbox that serves the session from
        now on, where that is another one."""
        is_awake = state is not State.DEEP_SLEEP
        return replace(
            self,
            ordinal=self.ordinal + 1,
            state=state,
            began_at=max(self.began_at, self.noted.at),  # where this one ends
            amounts=NOTHING,
            counters=(next_counters or self.counters) if is_awake else None,
        )

    @property
    def is_long(self) -> bool:
        """Whether it must close now, so as not to be too long at its next note."""
        return self.amounts.milliseconds >= 1000 * (LONGEST_SECONDS[self.state] - NOTE_SECONDS[self.state])


def first_window(session: Session, reading: Reading) -> OpenWindow:
    return OpenWindow(
        session=session.id,
        account=session.account,
        ordinal=1,
        state=session.state,
        began_at=reading.moment.at,
        noted=reading.moment,
        counters=reading.next or reading.counters,
        disk=reading.disk or 0,
        archived=archived_bytes(session),
        runs=reading.runs or NO_RUNS,
    )


def archived_bytes(session: Session) -> int:
    """Bytes that the archive keeps of the session: each object once."""
    sizes: dict[str, int] = {}
    for saved in (session.saved, session.previous):
        if saved is not None:
            sizes |= {**dict(zip(saved.below, saved.sizes, strict=False)), saved.name: saved.size}
    return sum(sizes.values())


def closes_window(old: Session, new: Session) -> bool:
    """Whether this change of a session ends its window."""
    return (old.state, old.sandbox) != (new.state, new.sandbox)


def days_of(used: Amounts, until: int) -> Iterator[tuple[int, Amounts]]:
    """Shares what was used up to a time (Unix milliseconds) among the days in UTC, by time. The shares add up. Yields
    days since 1970."""
    took = min(used.milliseconds, KEPT_DAYS * DAY_MS)
    since, last, given = until - took, (until - 1 if took else until) // DAY_MS, NOTHING
    for day in range(since // DAY_MS, last):
        so_far = used.share((day + 1) * DAY_MS - since, took)
        yield day, so_far - given
        given = so_far
    yield last, used - given


def month_of(day: int) -> int:
    """The month that a day is in. Both count from January 1970."""
    found = _FIRST_DAY + timedelta(days=day)
    return 12 * (found.year - _FIRST_DAY.year) + found.month - 1


def first_day_of(month: int) -> int:
    year, place = divmod(month, 12)
    return (date(_FIRST_DAY.year + year, place + 1, 1) - _FIRST_DAY).days


def parts_of(first: int, last: int) -> tuple[range, Sequence[tuple[int, int]]]:
    """The whole months between two days, and the first and last day of what is before and after those months."""
    months = range(month_of(first - 1) + 1, month_of(last + 1))
    if not months:
        return months, [(first, last)]
    rest = (first, first_day_of(months.start) - 1), (first_day_of(months.stop), last)
    return months, [(begin, end) for begin, end in rest if begin <= end]


def _used(window: OpenWindow, reading: Reading) -> Amounts:
    """What was used since the last note."""
    took = reading.moment.since(window.noted)
    disk = window.disk if reading.disk is None else (window.disk + reading.disk) // 2
    resting = Amounts(
        active=took if window.state is State.ACTIVE else 0,
        idle=took if window.state is State.IDLE else 0,
        deep_sleep=took if window.state is State.DEEP_SLEEP else 0,
        disk=disk * took // _KIB_SECOND,
        archived=window.archived * took // _KIB_SECOND,
        executions=_counted(window.runs, reading.runs),
    )
    if window.state is State.DEEP_SLEEP:
        return resting
    return resting + _kernels(window.counters, reading.counters, took)


def _kernels(before: Counters | None, now: Counters | None, took: int) -> Amounts:
    """What the kernel has counted. Another sandbox than before: nothing yet, because what it used until now may have
    been for nobody."""
    known = before or now
    if known is None:
        return NOTHING
    if before is None or now is None or before.sandbox != now.sandbox:
        return Amounts(memory=(now or known).memory * took // _KIB_SECOND)
    return Amounts(
        cpu=max(0, now.cpu - before.cpu),
        bytes_out=max(0, now.bytes_out - before.bytes_out),
        memory=(before.memory + now.memory) // 2 * took // _KIB_SECOND,
    )


def _counted(before: Runs, now: Runs | None) -> int:
    """Another run of the server has counted from 0."""
    if now is None:
        return 0
    return max(0, now.count - before.count) if now.server == before.server else now.count


def _later(before: Runs, now: Runs | None) -> Runs:
    return before if now is None or (now.server == before.server and now.count < before.count) else now
