"""What a session needs next, decided from values alone."""

from enum import Enum, auto

from buntime.session import Session, State


class Step(Enum):
    NOTHING = auto()
    FINISH_DELETE = auto()  # a delete was begun and may not have been finished
    EXPIRE = auto()  # its time has come: begin to delete it
    SUSPEND = auto()
    ARCHIVE = auto()


def next_step(session: Session, now: float, idle_after: float, deep_sleep_after: float) -> Step:
    """The next step of one session.

    `now` is Unix seconds; the others are seconds without activity after which an active session is
    suspended and an idle one archived (`math.inf`: never). One step at a time: a session that was active
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
        return Step.ARCHIVE
    return Step.NOTHING
