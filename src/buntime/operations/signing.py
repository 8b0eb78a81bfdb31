"""The secrets that sign deliveries. They are sealed at rest, and shown once."""

import base64
import binascii
import secrets
from collections.abc import Sequence

from buntime.lifecycle.sealing import Damaged, Vault
from buntime.webhook import SigningSecret, Webhook

PREFIX = "whsec_"  # of Standard Webhooks
RANDOM_BYTES = 32


class Unsealable(Exception):
    """The master key has changed."""


class Signing:
    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def new(self, webhook_id: str) -> tuple[str, SigningSecret]:
        """A secret, and how it is stored."""
        secret = PREFIX + base64.b64encode(secrets.token_bytes(RANDOM_BYTES)).decode()
        sealed = self._vault.seal_bytes(_label(webhook_id), secret.encode())
        return secret, SigningSecret(base64.b64encode(sealed).decode())

    def opened(self, webhook: Webhook, now: float) -> Sequence[str]:
        """The secrets that sign at `now` (Unix seconds), the newest first. Raises Unsealable."""
        try:
            return [
                self._vault.open_bytes(_label(webhook.id), base64.b64decode(secret.sealed, validate=True)).decode()
                for secret in webhook.signing_at(now)
            ]
        except (Damaged, binascii.Error):
            raise Unsealable from None


def _label(webhook_id: str) -> bytes:
    return f"webhook\0{webhook_id}".encode()
