"""A receiver tells genuine events from others."""

import base64
import time
from datetime import UTC, datetime

import pytest
from buntime_sdk import InvalidSignature, verify_webhook
from standardwebhooks import Webhook

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdefghijklmnopqrstuv").decode()
OTHER = "whsec_" + base64.b64encode(b"another key").decode()
BODY = (
    '{"eventId":"evt_1","type":"webhook.test","accountId":"acc_1","sessionId":null,"time":"2024-01-19T10:31:00Z",'
    '"requestId":null,"data":{"text":"olá"}}'
)


def signed(body: str = BODY, sent_at: float | None = None, secret: str = SECRET) -> dict[str, str]:
    """The headers that the library makes."""
    sent = int(time.time() if sent_at is None else sent_at)
    signature = Webhook(secret).sign("evt_1", datetime.fromtimestamp(sent, UTC), body)
    return {"Webhook-Id": "evt_1", "WEBHOOK-TIMESTAMP": str(sent), "webhook-signature": f"v1,AAAA v1a,x {signature}"}


@pytest.mark.parametrize("body", [BODY, BODY.encode(), bytearray(BODY.encode())])
def test_a_signed_request_is_the_event_that_it_has(body: str | bytes) -> None:
    event = verify_webhook(body, signed(), SECRET)
    assert (event.event_id, event.account_id, event.data) == ("evt_1", "acc_1", {"text": "olá"})
    assert verify_webhook(body, signed(), [OTHER, SECRET]) == event


@pytest.mark.parametrize(
    ("body", "changes", "secret"),
    [
        (BODY.replace("olá", "ola"), {}, SECRET),
        (BODY, {}, OTHER),
        (BODY, {}, []),
        (BODY, {"Webhook-Id": "evt_2"}, SECRET),
        (BODY, {"webhook-signature": ""}, SECRET),
        (BODY, {"webhook-signature": "v1,~~~"}, SECRET),
        (BODY, {"webhook-signature": "v1,olá"}, SECRET),
        (BODY, {"WEBHOOK-TIMESTAMP": "soon"}, SECRET),
        (BODY, {"WEBHOOK-TIMESTAMP": "-1"}, SECRET),
        (BODY, {"WEBHOOK-TIMESTAMP": "٣"}, SECRET),
    ],
)
def test_anything_else_is_refused(body: str, changes: dict[str, str], secret: str | list[str]) -> None:
    with pytest.raises(InvalidSignature):
        verify_webhook(body, signed() | changes, secret)


def test_a_request_that_is_old_or_has_no_headers_is_refused() -> None:
    for sent_at in (time.time() - 302, time.time() + 302):
        with pytest.raises(InvalidSignature):
            verify_webhook(BODY, signed(sent_at=sent_at), SECRET)
    assert verify_webhook(BODY, signed(sent_at=time.time() - 302), SECRET, tolerance=600)
    with pytest.raises(InvalidSignature, match="webhook-id"):
        verify_webhook(BODY, {}, SECRET)


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_~~~"])
def test_a_secret_that_is_none_is_a_mistake_of_the_program(secret: str) -> None:
    with pytest.raises(ValueError, match="whsec_"):
        verify_webhook(BODY, signed(), secret)


@pytest.mark.parametrize("digits", [13, 400, 5000])
def test_a_time_of_many_digits_is_refused(digits: int) -> None:
    with pytest.raises(InvalidSignature):
        verify_webhook(BODY, signed() | {"webhook-timestamp": "9" * digits}, SECRET)
