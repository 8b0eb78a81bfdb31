"""Ids and secrets that nobody can guess."""

import secrets

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"  # of ids
BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # of secrets

SESSION_PREFIX, SNAPSHOT_PREFIX, LAYER_PREFIX, PROCESS_PREFIX = "ses_", "snp_", "lay", "proc_"
LENGTH = 18  # random characters of an id that clients use


def random_text(alphabet: str, length: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(length))


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
