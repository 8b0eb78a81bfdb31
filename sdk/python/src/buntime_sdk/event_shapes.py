"""What the server returns of events and webhooks, as plain values. Times are aware datetimes in UTC."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias

from buntime_sdk.from_json import each, one_or_none, read_by, time_or_none

EventType: TypeAlias = Literal[
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What happened. `session_id`: the session, which may be gone; None for an event of the account. `request_id`: of
    the request that caused it; None if no request of the account did. `data`: by type; its `by` says who caused it,
    with `actor`, and for a key `keyId` and `address`. `account_id`: of a webhook's event. `cursor`: where to follow on
    after it, of an event that was followed.
    """

    event_id: str
    type: EventType
    session_id: str | None
    time: datetime = read_by(time_or_none)
    request_id: str | None
    data: Mapping[str, Any]
    account_id: str | None = None
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class EventPage:
    """A page of events, oldest first. `cursor`: where the next page begins."""

    cursor: str
    events: Sequence[Event] = read_by(each(Event))


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Where events are sent. `events`: their types; None for all. `disabled_reason`: `asked`, `failing` (for 5 days) or
    `gone` (it answered 410); None if it is on. `failing_since`: its first failure after its last success.
    `old_secret_expires_at`: until then the secret before the last rotation is valid too.
    """

    webhook_id: str
    url: str
    events: Sequence[EventType] | None
    enabled: bool
    disabled_reason: Literal["asked", "failing", "gone"] | None
    failing_since: datetime | None = read_by(time_or_none)
    old_secret_expires_at: datetime | None = read_by(time_or_none)
    created_at: datetime = read_by(time_or_none)


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeWebhook(Webhook):
    """`secret`: what `verify_webhook` needs. The server does not show it again."""

    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event to one webhook. `state`: `failed` when all 8 attempts have failed. `status`: of the last answer, if
    there was one. `failure`: why the last attempt failed. `next_attempt_at`: of a pending one.
    """

    delivery_id: str
    event: Event = read_by(one_or_none(Event))
    state: Literal["pending", "delivered", "failed"]
    attempts: int
    last_attempt_at: datetime | None = read_by(time_or_none)
    next_attempt_at: datetime | None = read_by(time_or_none)
    status: int | None
    failure: str | None
