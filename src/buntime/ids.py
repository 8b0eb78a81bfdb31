"""Ids and secrets that nobody can guess."""

import secrets
from functools import cache

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"  # of ids
BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # of secrets

SESSION_PREFIX, SNAPSHOT_PREFIX, LAYER_PREFIX, PROCESS_PREFIX = "ses_", "snp_", "lay", "proc_"
LENGTH = 18  # random characters of an id that clients use


def random_text(alphabet: str, length: int) -> str:
    """Each character is equally likely. One call of the kernel for most texts, not one for each character."""
    table, surplus = _table(alphabet)
    text = ""
    while len(text) < length:
        text += secrets.token_bytes(2 * length).translate(table, surplus).decode("ascii")
    return text[:length]


@cache
def _table(alphabet: str) -> tuple[bytes, bytes]:
    """A character for each byte, and the bytes beyond the last whole alphabet, which would prefer some characters."""
    whole = 256 // len(alphabet) * len(alphabet)
    return bytes(ord(alphabet[byte % len(alphabet)]) for byte in range(256)), bytes(range(whole, 256))


def new_id(prefix: str, length: int = LENGTH) -> str:
    """`prefix` and `length` random characters of a-z0-9."""
    return prefix + random_text(ALPHABET, length)


def new_session_id() -> str:
    return new_id(SESSION_PREFIX)


def new_sandbox_id() -> str:
    return new_id("sb", 12)


def new_volume_id() -> str:
    return new_id("vol", 12)


def new_layer_id() -> str:
    return new_id(LAYER_PREFIX, 12)


def new_snapshot_id() -> str:
    return new_id(SNAPSHOT_PREFIX)


def new_process_id(milliseconds: int) -> str:
    """Sorts by time: an id made in a later millisecond is greater."""
    time = ""
    for _ in range(9):
        milliseconds, digit = divmod(milliseconds, 36)
        time = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + time
    return new_id(f"{PROCESS_PREFIX}{time}", 9)
