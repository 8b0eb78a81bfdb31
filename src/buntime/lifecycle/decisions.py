"""What a session needs next, decided from values alone. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from buntime.plan import Plan
from buntime.ports import Worked
from buntime.session import NEVER, AwakeWhile, Session, SleepPolicy, State


class Step(Enum):
    NOTHING = auto()  # look again at `next_due`
    FINISH_DELETE = auto()  # remove the remains of a deleted session
    EXPIRE = auto()  # its time is over: delete it
    SUSPEND = auto()  # freeze its sandbox
    KEEP = auto()  # archive its volume; it stays suspended, with its processes
    DEEP_SLEEP = auto()  # end its processes and give its sandbox back
    SETTLE = auto()  # store the deep sleep of one whose sandbox has ended without us; `next_step` does not return it
    ARCHIVE = auto()  # save its volume, which is only on this host


class Asleep(Enum):
    """What happens to a suspended session when it is time for its deep sleep."""

    ENDS = auto()  # it goes to deep sleep
    STAYS = auto()  # it is archived and stays suspended
    KEPT = auto()  # that has been done


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds without activity until an active session is suspended, and an idle one goes to deep sleep; infinity:
    never."""

    idle_after: float = 300.0
    deep_sleep_after: float = 1800.0
    awaits_processes: bool = False  # what its own processes do is activity too


def waits_of(policy: SleepPolicy, plan: Plan | None, usual: Waits) -> Waits:
    """What holds for a session with this policy now. The plan may allow less than when the session asked for it.

    `plan`: None where it is not known, and then the server's `usual` waits hold, as for all that a session did not ask
    for.
    """
    if plan is None:
        return usual
    return Waits(
        _within(policy.idle_after, plan.idle_after_most, usual.idle_after),
        _within(policy.deep_sleep_after, plan.deep_sleep_after_most, usual.deep_sleep_after),
        policy.awake_while is AwakeWhile.PROCESSES and plan.may_await_processes,
    )


def _within(asked: int | None, most: float, usual: float) -> float:
    if asked is None:
        return usual
    return min(math.inf if asked == NEVER else asked, most)


WORK_CPU = 0.02  # of one core
WORK_BYTES = 1024  # a second, in both directions together


def is_at_work(before: Worked, now: Worked, seconds: float) -> bool:
    """Whether a session's own processes did enough to keep it awake in the time between two readings of one source."""
    used, moved = (now.cpu - before.cpu) / 1e6, now.traffic - before.traffic
    return used >= WORK_CPU * seconds or moved >= WORK_BYTES * seconds


def next_step(
    session: Session, now: float, idle_after: float, deep_sleep_after: float, asleep: Asleep = Asleep.ENDS
) -> Step:
    """The next step of one session.

    `now`: Unix seconds. `idle_after`, `deep_sleep_after`: seconds without activity after which an active session is
    suspended and an idle one goes to deep sleep (`math.inf`: never). An active session is always suspended before it
    goes to deep sleep. A clock that was set back makes nothing happen early.
    """
    if session.state is State.DELETING:
        return Step.FINISH_DELETE
    if session.has_expired(now):
        return Step.EXPIRE
    quiet = now - session.last_active
    if session.state is State.ACTIVE and quiet >= idle_after:
        return Step.SUSPEND
    if session.state is State.IDLE and quiet >= deep_sleep_after:
        return {Asleep.ENDS: Step.DEEP_SLEEP, Asleep.STAYS: Step.KEEP, Asleep.KEPT: Step.NOTHING}[asleep]
    if session.state is State.DEEP_SLEEP and not session.archived:
        return Step.ARCHIVE
    return Step.NOTHING


def next_due(session: Session, idle_after: float, deep_sleep_after: float, asleep: Asleep = Asleep.ENDS) -> float:
    """The earliest time (Unix seconds) at which `next_step` returns a step for the session, if nothing changes."""
    match session.state:
        case State.ACTIVE:
            return min(session.ends_at, session.last_active + idle_after)
        case State.IDLE if asleep is Asleep.KEPT:
            return session.ends_at
        case State.IDLE:
            return min(session.ends_at, session.last_active + deep_sleep_after)
        case State.DEEP_SLEEP if session.archived:
            return session.ends_at
    return 0.0


def is_lost(session: Session, *, is_here: bool) -> bool:
    """Whether files of the session are lost that the archive does not have, or a wake would not go on by itself.
    `is_here`: the volume is on this host."""
    if is_here:
        return False
    is_archived = session.state is State.DEEP_SLEEP and session.archived  # or it lost its volume before a start
    return not is_archived or session.saved is None or session.saved.is_checkpoint


EARLY = 1.0  # seconds by which a checkpoint begins earlier: so long it may take to be noticed


def archived_until(session: Session, current: float, now: float) -> float:
    """Until when all changes of a session are in the archive. `current`: when nothing was missing there, as far as is
    known; 0: not known. A clock that was set back puts no checkpoint off."""
    known = session.saved.taken_at if session.saved else session.created_at
    return min(max(known, current), now)


def before_checkpoint(every: int, took: float) -> float:
    """Seconds until the next checkpoint begins, so that it ends within `every` seconds. `took`: seconds of the last
    one. At most half of the time is left for it."""
    return max(every / 2, every - took - EARLY)


def coldest_suspended(sessions: Iterable[Session]) -> Sequence[Session]:
    """Suspended sessions, the one that was quiet for longest first. Giving back their sandboxes disturbs nobody."""
    idle = [session for session in sessions if session.state is State.IDLE]
    return sorted(idle, key=lambda session: session.last_active)


def least_recently_used(sessions: Iterable[Session], cached: Mapping[str, int], size: int) -> Sequence[Session]:
    """Archived sessions whose volumes on this host have at least `size` bytes together, or all of them.

    `cached`: volume id → bytes. The session that was quiet for longest comes first.
    """
    archived = [session for session in sessions if session.archived and session.volume in cached]
    chosen: list[Session] = []
    for session in sorted(archived, key=lambda session: session.last_active):
        if size <= 0:
            break
        chosen.append(session)
        size -= cached[session.volume]
    return chosen
