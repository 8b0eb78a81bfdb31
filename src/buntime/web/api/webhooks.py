"""Webhooks of an account: where its events are sent."""

from collections.abc import Sequence

from msgspec import UNSET, UnsetType

from buntime import errors, webhook
from buntime.event import AccountEvent, EventType
from buntime.operations.webhooks import MadeWebhook, Patch
from buntime.ports import EventDelivery
from buntime.scope import Scope
from buntime.web.api.events import shown as shown_event
from buntime.web.api.ids import delivery_id, webhook_id
from buntime.web.operation import Call, operation
from buntime.web.wire import webhooks as wire
from buntime.web.wire.shapes import NoQuery, encode, given, iso


@operation(
    "POST",
    "/webhooks/create",
    Scope.ACCOUNT_WRITE,
    tag="Webhooks",
    body=wire.CreateWebhook,
    answer=wire.WebhookMade,
    errors=(errors.ResourceLimitExceeded,),
    idempotent=True,
    secret=True,
    own_replies=True,
)
async def create_webhook(call: Call[NoQuery, wire.CreateWebhook]) -> wire.WebhookMade:
    """Create a webhook: the events of your account are sent to a URL.

    Each event is a POST of the JSON of `GET /events` with `accountId`, signed by the rules of Standard Webhooks. Any
    2xx within 15 seconds is a success; a redirect is a failure. After a failure it is sent again: 5 seconds, 5 minutes,
    30 minutes, 2, 5, 10 and 10 hours later. So the same event can arrive more than once: its `Webhook-Id` stays the
    same. Events of a session arrive in order where possible. 410 turns the webhook off, and so do 5 days of failure.

    The response has the secret, which is not shown again. The host must have public addresses alone, when an event is
    sent. An account has at most 10 webhooks.
    """
    body, answer = call.body, call.answer
    made = await call.operations.webhooks.create(
        call.caller, body.url, _types(body.events), answer and (lambda made: answer(encode(_made(made))))
    )
    return _made(made)


@operation("GET", "/webhooks", Scope.ACCOUNT_READ, tag="Webhooks", query=wire.WebhooksQuery, answer=wire.Webhooks)
async def list_webhooks(call: Call[wire.WebhooksQuery, None]) -> wire.Webhooks:
    """List the webhooks of your account, oldest first, without their secrets."""
    found, start = await call.operations.webhooks.list(call.caller), call.query.offset
    page = found[start : start + call.query.limit]
    return wire.Webhooks(webhooks=[_shown(one) for one in page], total=len(found))


@operation(
    "GET",
    "/webhooks/{webhookId}",
    Scope.ACCOUNT_READ,
    tag="Webhooks",
    answer=wire.Webhook,
    errors=(errors.WebhookNotFound,),
)
async def get_webhook(call: Call[NoQuery, None]) -> wire.Webhook:
    """Get a webhook."""
    return _shown(await call.operations.webhooks.get(call.caller, webhook_id(call.path["webhookId"])))


@operation(
    "PATCH",
    "/webhooks/{webhookId}",
    Scope.ACCOUNT_WRITE,
    tag="Webhooks",
    body=wire.PatchWebhook,
    answer=wire.Webhook,
    errors=(errors.WebhookNotFound, errors.InvalidState),
)
async def change_webhook(call: Call[NoQuery, wire.PatchWebhook]) -> wire.Webhook:
    """Change the URL or the types of a webhook, or turn it on or off.

    What waits is sent to the new URL. A webhook that is turned on goes on with what waited when it was turned off.
    """
    body, wanted = call.body, webhook_id(call.path["webhookId"])
    patch = Patch(given(body.url), _types(body.events), body.events is not UNSET, given(body.enabled))
    return _shown(await call.operations.webhooks.change(call.caller, wanted, patch))


@operation(
    "DELETE",
    "/webhooks/{webhookId}",
    Scope.ACCOUNT_WRITE,
    tag="Webhooks",
    answer=wire.DeletedWebhook,
    errors=(errors.WebhookNotFound,),
)
async def delete_webhook(call: Call[NoQuery, None]) -> wire.DeletedWebhook:
    """Delete a webhook, with its deliveries. What is being sent now may still arrive."""
    wanted = webhook_id(call.path["webhookId"])
    await call.operations.webhooks.delete(call.caller, wanted)
    return wire.DeletedWebhook(deleted=True, webhook_id=wanted)


@operation(
    "POST",
    "/webhooks/{webhookId}/rotate",
    Scope.ACCOUNT_WRITE,
    tag="Webhooks",
    body=wire.RotateSecret,
    body_optional=True,
    answer=wire.WebhookMade,
    errors=(errors.WebhookNotFound, errors.InvalidState),
    idempotent=True,
    secret=True,
    own_replies=True,
)
async def rotate_webhook_secret(call: Call[NoQuery, wire.RotateSecret]) -> wire.WebhookMade:
    """Give a webhook a new secret.

    The secret before signs too, for a day unless you choose another `overlap`. Deliveries have both signatures then.
    With `overlap` 0 it is worthless at once.
    """
    wanted = webhook_id(call.path["webhookId"])
    return _made(await call.operations.webhooks.rotate(call.caller, wanted, call.body.overlap))


@operation(
    "POST",
    "/webhooks/{webhookId}/test",
    Scope.ACCOUNT_WRITE,
    tag="Webhooks",
    answer=wire.TestSent,
    errors=(errors.WebhookNotFound, errors.InvalidState),
)
async def test_webhook(call: Call[NoQuery, None]) -> wire.TestSent:
    """Send a `webhook.test` event to this webhook alone, whatever its types.

    The response does not wait for it. `GET /webhooks/{webhookId}/deliveries` says what came of it. A webhook that is
    off gets 409.
    """
    told = await call.operations.webhooks.test(call.caller, webhook_id(call.path["webhookId"]))
    return wire.TestSent(event_id=told.id)


@operation(
    "GET",
    "/webhooks/{webhookId}/deliveries",
    Scope.ACCOUNT_READ,
    tag="Webhooks",
    query=wire.DeliveriesQuery,
    answer=wire.Deliveries,
    errors=(errors.WebhookNotFound,),
)
async def list_deliveries(call: Call[wire.DeliveriesQuery, None]) -> wire.Deliveries:
    """List what was sent to a webhook and what waits, newest event first. Deliveries stay as long as their events."""
    wanted, query = webhook_id(call.path["webhookId"]), call.query
    found, total = await call.operations.webhooks.deliveries(call.caller, wanted, query.limit, query.offset)
    return wire.Deliveries(deliveries=[_delivery(one) for one in found], total=total)


@operation(
    "POST",
    "/webhooks/{webhookId}/deliveries/{deliveryId}/redeliver",
    Scope.ACCOUNT_WRITE,
    tag="Webhooks",
    answer=wire.Redelivered,
    errors=(errors.WebhookNotFound, errors.DeliveryNotFound, errors.InvalidState),
)
async def redeliver(call: Call[NoQuery, None]) -> wire.Redelivered:
    """Send an event to this webhook once more, with all its attempts, whatever came of it before.

    A webhook that is off gets 409.
    """
    wanted, one = webhook_id(call.path["webhookId"]), delivery_id(call.path["deliveryId"])
    await call.operations.webhooks.redeliver(call.caller, wanted, one)
    return wire.Redelivered(delivery_id=one)


OPERATIONS = (
    create_webhook,
    list_webhooks,
    get_webhook,
    change_webhook,
    delete_webhook,
    rotate_webhook_secret,
    test_webhook,
    list_deliveries,
    redeliver,
)


def body_of(event: AccountEvent) -> bytes:
    """What is sent of an event."""
    told = shown_event(event)
    fields = {name: getattr(told, name) for name in told.__struct_fields__}
    return encode(wire.SentEvent(**fields, account_id=event.account))


def _types(names: Sequence[str] | UnsetType | None) -> frozenset[EventType] | None:
    return None if names is None or isinstance(names, UnsetType) else frozenset(map(EventType, names))


def _shown(one: webhook.Webhook) -> wire.Webhook:
    until = one.secrets[1].until if len(one.secrets) > 1 else None
    return wire.Webhook(
        webhook_id=one.id,
        url=one.url,
        events=None if one.types is None else [what.value for what in EventType if what in one.types],
        enabled=one.off is None,
        disabled_reason=one.off,
        failing_since=None if one.failing_since is None else iso(one.failing_since),
        old_secret_expires_at=None if until is None else iso(until),
        created_at=iso(one.created_at),
    )


def _made(made: MadeWebhook) -> wire.WebhookMade:
    told = _shown(made.webhook)
    fields = {name: getattr(told, name) for name in told.__struct_fields__}
    return wire.WebhookMade(**fields, secret=made.secret)


def _delivery(one: EventDelivery) -> wire.Delivery:
    delivery = one.delivery
    pending = delivery.state is webhook.DeliveryState.PENDING
    return wire.Delivery(
        delivery_id=delivery.id,
        event=shown_event(one.event),
        state=delivery.state.value,
        attempts=delivery.attempts,
        last_attempt_at=None if delivery.tried_at is None else iso(delivery.tried_at),
        next_attempt_at=iso(delivery.due_at) if pending else None,
        status=delivery.status,
        failure=delivery.failure,
    )
