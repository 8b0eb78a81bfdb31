"""The JSON shapes of webhooks and their deliveries."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, UnsetType

from buntime.web.wire.events import Event, EventTypeName
from buntime.web.wire.fields import DELIVERY_ID, WEBHOOK_ID, Limit, Offset, Time
from buntime.web.wire.shapes import Request, Response
from buntime.webhook import MOST_LISTED

LONGEST_OVERLAP = 7 * 86400  # seconds
OVERLAP = 86400  # by default

WebhookId = Annotated[str, Meta(description=WEBHOOK_ID)]
Url = Annotated[
    str,
    Meta(
        max_length=2048,
        description="`https://` or `http://` and a public host. ASCII, without a user name, a password or a fragment.",
        examples=["https://example.com/hooks/buntime"],
    ),
]
Types = Annotated[
    list[EventTypeName],
    Meta(min_length=1, description="The types of events that are sent. Null: all, also those that come later."),
]


class SentEvent(Event):
    """What a webhook gets."""

    account_id: Annotated[str, Meta(description="The account. An operator's webhook gets events of all accounts.")]


class Webhook(Response):
    webhook_id: WebhookId
    url: str
    events: Annotated[
        list[EventTypeName] | None, Meta(description="The types of events that are sent. Null: all of them.")
    ]
    enabled: bool
    disabled_reason: Annotated[
        Literal["asked", "failing", "gone"] | None,
        Meta(
            description="`asked`: you turned it off. `failing`: it failed for 5 days. `gone`: it answered 410. Null: "
            "it is on."
        ),
    ]
    failing_since: Annotated[Time | None, Meta(description="Its first failure after its last success.")]
    old_secret_expires_at: Annotated[
        Time | None, Meta(description="Until then, the secret before the last rotation signs too.")
    ]
    created_at: Time


class WebhookMade(Webhook):
    secret: Annotated[
        str, Meta(description="`whsec_` and base64: verifies what is sent. Shown only once.", examples=["whsec_…"])
    ]


class CreateWebhook(Request):
    url: Url
    events: Types | UnsetType | None = UNSET


class PatchWebhook(Request):
    url: Url | UnsetType = UNSET
    events: Types | UnsetType | None = UNSET
    enabled: (
        Annotated[
            bool,
            Meta(description="`false` turns it off: events that happen meanwhile are not sent to it, not even later."),
        ]
        | UnsetType
    ) = UNSET


class RotateSecret(Request):
    overlap: Annotated[
        int,
        Meta(ge=0, le=LONGEST_OVERLAP, description="Seconds for which the secret before signs too."),
    ] = OVERLAP


class Webhooks(Response):
    webhooks: Annotated[list[Webhook], Meta(description="Oldest first.")]
    total: int


class WebhooksQuery(Request):
    limit: Limit = 50
    offset: Offset = 0


class DeletedWebhook(Response):
    deleted: bool
    webhook_id: WebhookId


class TestSent(Response):
    event_id: Annotated[str, Meta(description="The id of the `webhook.test` event.")]


class Delivery(Response):
    delivery_id: Annotated[str, Meta(description=DELIVERY_ID)]
    event: Event
    state: Annotated[
        Literal["pending", "delivered", "failed"],
        Meta(description="`failed`: all 8 attempts failed. Redeliver it to begin again."),
    ]
    attempts: int
    last_attempt_at: Time | None
    next_attempt_at: Annotated[Time | None, Meta(description="Of a pending one, unless the webhook is off.")]
    status: Annotated[int | None, Meta(description="Of the last answer. Null: there was none.")]
    failure: Annotated[str | None, Meta(description="Why the last attempt failed, in words.")]


class Deliveries(Response):
    deliveries: Annotated[list[Delivery], Meta(description="Newest event first.")]
    total: Annotated[int, Meta(description="At most 100,000: older ones are not listed.")]


class DeliveriesQuery(Request):
    limit: Limit = 50
    offset: Annotated[
        int, Meta(ge=0, le=MOST_LISTED, description="The number of deliveries to skip. The newest 100,000 are listed.")
    ] = 0


class Redelivered(Response):
    delivery_id: Annotated[str, Meta(description=DELIVERY_ID)]
