"""Ids as clients send them. Text that cannot be an id is rejected before the store is asked."""

import re

from buntime import errors
from buntime.web.exchange import SESSION_ID

PROCESS_ID = re.compile(r"proc_[a-z0-9]{18}")
CONTEXT_ID = re.compile(r"ctx_[a-z0-9]{18}")
SNAPSHOT_ID = re.compile(r"snp_[a-z0-9]{18}")
KEY_ID = re.compile(r"key_[a-z0-9]{12}")
WEBHOOK_ID = re.compile(r"whk_[a-z0-9]{18}")
DELIVERY_ID = re.compile(r"dlv_[a-z0-9]{18}")
TERMINAL_ID = re.compile(r"term_[a-z0-9]{18}")


def session_id(text: str) -> str:
    """Raises SessionNotFound."""
    if not SESSION_ID.fullmatch(text):
        raise errors.SessionNotFound(text[:64])
    return text


def snapshot_id(text: str) -> str:
    """Raises SnapshotNotFound."""
    if not SNAPSHOT_ID.fullmatch(text):
        raise errors.SnapshotNotFound(text[:64])
    return text


def key_id(text: str) -> str:
    """Raises KeyNotFound."""
    if not KEY_ID.fullmatch(text):
        raise errors.KeyNotFound(text[:64])
    return text


def webhook_id(text: str) -> str:
    """Raises WebhookNotFound."""
    if not WEBHOOK_ID.fullmatch(text):
        raise errors.WebhookNotFound(text[:64])
    return text


def delivery_id(text: str) -> str:
    """Raises DeliveryNotFound."""
    if not DELIVERY_ID.fullmatch(text):
        raise errors.DeliveryNotFound(text[:64])
    return text


def process_id(text: str) -> str:
    """Raises ProcessNotFound."""
    if not PROCESS_ID.fullmatch(text):
        raise errors.ProcessNotFound(text[:100])
    return text


def context_id(text: str) -> str:
    """Raises ContextNotFound."""
    if not CONTEXT_ID.fullmatch(text):
        raise errors.ContextNotFound(text[:100])
    return text


def terminal_id(text: str) -> str:
    """Raises TerminalNotFound."""
    if not TERMINAL_ID.fullmatch(text):
        raise errors.TerminalNotFound(text[:100])
    return text
