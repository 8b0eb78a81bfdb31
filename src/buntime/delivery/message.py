"""The headers of a delivery, by the rules of Standard Webhooks."""

from collections.abc import Sequence
from datetime import UTC, datetime

from standardwebhooks import Webhook as Signer

AGENT = b"buntime-webhooks/1"


def headers_of(event_id: str, body: bytes, secrets: Sequence[str], now: float) -> list[tuple[bytes, bytes]]:
    """`secrets`: each signs, so that a receiver with any of them can verify the body. `now`: Unix seconds.

    The id is the event's, in each attempt and to each endpoint, so that a receiver can tell that it has it already.
    """
    time, text = datetime.fromtimestamp(int(now), UTC), body.decode()
    signatures = " ".join(Signer(secret).sign(event_id, time, text) for secret in secrets)
    return [
        (b"Content-Type", b"application/json"),
        (b"User-Agent", AGENT),
        (b"Webhook-Id", event_id.encode()),
        (b"Webhook-Timestamp", str(int(now)).encode()),
        (b"Webhook-Signature", signatures.encode()),
    ]
