"""An event says what happened in an account: to a session, to a key, to the account itself.

Clients read events, and webhooks deliver them. What an event says, the account may know: it has no content of a
session and no secret.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from buntime.account import Account, Key
from buntime.cause import SERVER, Cause, cause_for
from buntime.ids import new_id
from buntime.scope import in_order
from buntime.session import Session, State
from buntime.snapshot import Snapshot

EVENT_PREFIX = "evt_"
KEPT_SECONDS = 30 * 86400
MOST_KEPT = 100_000  # of one account; the oldest go first


class EventType(StrEnum):
    SESSION_CREATED = "session.created"
    SESSION_IDLE = "session.idle"
    SESSION_DEEP_SLEEP = "session.deep_sleep"
    SESSION_WOKEN = "session.woken"
    SESSION_EXPIRED = "session.expired"
    SESSION_DELETED = "session.deleted"
    EXECUTION_COMPLETED = "execution.completed"
    PROCESS_EXITED = "process.exited"
    LIMIT_EXCEEDED = "resource_limit.exceeded"
    SNAPSHOT_CREATED = "snapshot.created"
    KEY_CREATED = "key.created"
    KEY_REVOKED = "key.revoked"
    ACCOUNT_CREATED = "account.created"
    ACCOUNT_SUSPENDED = "account.suspended"
    ACCOUNT_RESUMED = "account.resumed"
    ACCOUNT_DELETED = "account.deleted"
    WEBHOOK_CREATED = "webhook.created"
    WEBHOOK_CHANGED = "webhook.changed"
    WEBHOOK_DELETED = "webhook.deleted"
    WEBHOOK_DISABLED = "webhook.disabled"
    WEBHOOK_TEST = "webhook.test"


@dataclass(frozen=True, slots=True)
class AccountEvent:
    """`session.Event` is a step of a session's life; this is what is told of it."""

    id: str  # evt_ + 18 of a-z0-9
    account: str
    type: EventType
    time: int  # Unix seconds
    session: str | None  # id; the session may be gone
    data: Mapping[str, object]  # by type; JSON
    cause: Cause = SERVER


_FALLS_TO = {State.IDLE: EventType.SESSION_IDLE, State.DEEP_SLEEP: EventType.SESSION_DEEP_SLEEP}


def new_event(
    account: str,
    what: EventType,
    now: float,
    data: Mapping[str, object],
    *,
    session: str | None = None,
    cause: Cause | None = None,
) -> AccountEvent:
    """`cause`: None for the current one."""
    known = cause_for(account) if cause is None else cause
    return AccountEvent(new_id(EVENT_PREFIX), account, what, int(now), session, data, known)


def of_new_session(session: Session) -> AccountEvent:
    data = {"name": session.name, "image": session.image_name, "snapshotId": session.made_of}
    return new_event(session.account, EventType.SESSION_CREATED, session.created_at, data, session=session.id)


def of_change(before: Session, after: Session, now: float) -> tuple[AccountEvent, ...]:
    """What is told of a stored change: of a new state, and of nothing else.

    A session that ends after its end has expired, whoever notices.
    """
    if before.state is after.state:
        return ()
    data: dict[str, object] = {"name": before.name, "stateBefore": before.state.value}
    cause = None
    if after.state is State.DELETING:
        expired = before.has_expired(now)
        what = EventType.SESSION_EXPIRED if expired else EventType.SESSION_DELETED
        cause = SERVER if expired else None
    else:
        what = _FALLS_TO.get(after.state, EventType.SESSION_WOKEN)
    return (new_event(before.account, what, now, data, session=before.id, cause=cause),)


def of_snapshot(snapshot: Snapshot) -> AccountEvent:
    data = {"snapshotId": snapshot.id, "name": snapshot.name, "sizeBytes": snapshot.size}
    now, session = snapshot.created_at, snapshot.session
    return new_event(snapshot.account, EventType.SNAPSHOT_CREATED, now, data, session=session)


def of_new_key(key: Key, cause: Cause | None = None) -> AccountEvent:
    data = {"keyId": key.id, "name": key.name, "hint": key.hint, "scopes": in_order(key.scopes)}
    return new_event(key.account, EventType.KEY_CREATED, key.created_at, data, cause=cause)


def of_revoked_key(key: Key, now: float, cause: Cause | None = None) -> AccountEvent:
    data = {"keyId": key.id, "name": key.name, "hint": key.hint}
    return new_event(key.account, EventType.KEY_REVOKED, now, data, cause=cause)


def of_account(account: Account, what: EventType, now: float, cause: Cause) -> AccountEvent:
    """Of an account that was created, suspended, resumed or deleted."""
    return new_event(account.id, what, now, {"plan": account.plan, "overrides": account.overrides}, cause=cause)
