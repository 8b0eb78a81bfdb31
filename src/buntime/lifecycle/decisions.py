"""What a session needs next, decided from values alone."""

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum, auto

from buntime.session import Session, State


class Step(Enum):
    NOTHING = auto()
    FINISH_DELETE = auto()  # a delete was begun and may not have been finished
    EXPIRE = auto()  # its time has come: begin to delete it
    SUSPEND = auto()
    DEEP_SLEEP = auto()
    ARCHIVE = auto()  # it is in deep sleep and its volume is on this host alone


def next_step(session: Session, now: float, idle_after: float, deep_sleep_after: float) -> Step:
    """The next step of one session.

    `now` is Unix seconds; the others are seconds without activity after which an active session is
    suspended and an idle one put to deep sleep (`math.inf`: never). One step at a time: a session that was active
    for too long without a request is suspended first, whatever else it is due for. A clock that was
    set back makes nothing happen early.
    """
    if session.state is State.DELETING:
        return Step.FINISH_DELETE
    if now >= session.expires_at:
        return Step.EXPIRE
    quiet = now - session.last_active
    if session.state is State.ACTIVE and quiet >= idle_after:
        return Step.SUSPEND
    if session.state is State.IDLE and quiet >= deep_sleep_after:
        return Step.DEEP_SLEEP
    if session.state is State.DEEP_SLEEP and not session.archived:
        return Step.ARCHIVE
    return Step.NOTHING


def next_due(session: Session, idle_after: float, deep_sleep_after: float) -> float:
    """When `next_step` has something for the session at the earliest, if nothing changes (Unix seconds)."""
    match session.state:
        case State.ACTIVE:
            return min(session.expires_at, session.last_active + idle_after)
        case State.IDLE:
            return min(session.expires_at, session.last_active + deep_sleep_after)
        case State.DEEP_SLEEP if session.archived:
            return session.expires_at
    return 0.0


def coldest_suspended(sessions: Iterable[Session]) -> Sequence[Session]:
    """Those whose sandboxes can be given back without anybody noticing, the one that was quiet for longest first."""
    idle = [session for session in sessions if session.state is State.IDLE]
    return sorted(idle, key=lambda session: session.last_active)


def least_recently_used(sessions: Iterable[Session], cached: Mapping[str, int], size: int) -> Sequence[Session]:
    """Archived sessions whose volumes on this host have `size` bytes together, as far as there are so many.

    `cached`: sandbox id → bytes.
    """
    archived = [session for session in sessions if session.archived and session.sandbox in cached]
    chosen: list[Session] = []
    for session in sorted(archived, key=lambda session: session.last_active):
        if size <= 0:
            break
        chosen.append(session)
        size -= cached[session.sandbox]
    return chosen
