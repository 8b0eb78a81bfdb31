"""Verifies what a webhook sends, by the rules of Standard Webhooks."""

import base64
import binascii
import hmac
import json
import time
from collections.abc import Mapping, Sequence

from buntime_sdk.errors import InvalidSignature
from buntime_sdk.event_shapes import Event
from buntime_sdk.from_json import from_wire

TOLERANCE_SECONDS = 300.0
PREFIX = "whsec_"
LONGEST_TIME = 12  # digits


def verify_webhook(
    body: bytes | str,
    headers: Mapping[str, str],
    secret: str | Sequence[str],
    *,
    tolerance: float = TOLERANCE_SECONDS,
) -> Event:
    """Returns the event that a webhook has sent, if it is genuine.

    `body`: exactly as it arrived, not parsed. `headers`: of the request, in any case. `secret`: the webhook's, or
    several, such as the old and the new one. `tolerance`: seconds that the request may be old, or ahead of your clock;
    300 by default. The same event may come more than once: its `event_id` stays the same.

    Raises InvalidSignature when it is not signed with a secret, or is too old. Raises ValueError for a secret that is
    none.
    """
    raw = body.encode() if isinstance(body, str) else bytes(body)
    told = {name.lower(): value for name, value in headers.items()}
    try:
        message, sent_at, signatures = (told[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
    except KeyError as missing:
        raise InvalidSignature(f"The request has no header {missing.args[0]}.") from None
    is_time = sent_at.isascii() and sent_at.isdecimal() and len(sent_at) <= LONGEST_TIME
    if not is_time or abs(time.time() - int(sent_at)) > tolerance:
        raise InvalidSignature("The request is too old, or ahead of this clock.")
    signed = f"{message}.{sent_at}.".encode() + raw
    keys = [_key(one) for one in ([secret] if isinstance(secret, str) else secret)]
    expected = [base64.b64encode(hmac.digest(key, signed, "sha256")) for key in keys]
    given = [one.removeprefix("v1,").encode() for one in signatures.split(" ") if one.startswith("v1,")]
    if not any(hmac.compare_digest(one, other) for one in given for other in expected):
        raise InvalidSignature("The request is not signed with this secret.")
    return from_wire(Event, json.loads(raw))


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not key:
        raise ValueError(f"a webhook's secret is {PREFIX} and base64")
    return key
