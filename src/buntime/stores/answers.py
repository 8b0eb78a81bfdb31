"""Answers to idempotent requests in SQL; big bodies are compressed."""

import sqlite3
import zlib
from dataclasses import dataclass

from buntime.ports import Answer

PACKED_FROM = 1 << 10  # bytes; below it compression saves nothing that matters
FAST_LEVEL = 1  # of zlib: bodies are JSON and live for a day

_ADD = """
INSERT INTO answers (account, key, fingerprint, status, created_at, packed, body)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (account, key) DO NOTHING
"""

_DROP = """
DELETE FROM answers
WHERE rowid IN (SELECT rowid FROM answers WHERE created_at < ? ORDER BY created_at LIMIT ?)
"""


@dataclass(frozen=True, slots=True)
class PackedAnswer:
    """An answer as it is stored: its body compressed where that pays."""

    account: str
    key: str
    fingerprint: str
    status: int
    created_at: int
    packed: bool
    body: bytes


def pack(answer: Answer) -> PackedAnswer:
    """Takes about 10 ms for each MB of the body."""
    packed = len(answer.body) > PACKED_FROM
    body = zlib.compress(answer.body, FAST_LEVEL) if packed else answer.body
    return PackedAnswer(answer.account, answer.key, answer.fingerprint, answer.status, answer.created_at, packed, body)


def unpack(stored: PackedAnswer) -> Answer:
    body = zlib.decompress(stored.body) if stored.packed else stored.body
    return Answer(stored.account, stored.key, stored.fingerprint, stored.status, body, stored.created_at)


def add_answer(connection: sqlite3.Connection, stored: PackedAnswer) -> bool:
    """False, and nothing changed, where there is one for this account and key."""
    row = (
        stored.account,
        stored.key,
        stored.fingerprint,
        stored.status,
        stored.created_at,
        int(stored.packed),
        stored.body,
    )
    return connection.execute(_ADD, row).rowcount == 1


def find_answer(connection: sqlite3.Connection, account_id: str, key: str) -> PackedAnswer | None:
    row = connection.execute(
        "SELECT account, key, fingerprint, status, created_at, packed, body FROM answers WHERE account = ? AND key = ?",
        (account_id, key),
    ).fetchone()
    if row is None:
        return None
    account, key, fingerprint, status, created_at, packed, body = row
    return PackedAnswer(account, key, fingerprint, status, created_at, bool(packed), body)


def drop_answers(connection: sqlite3.Connection, before: int, most: int) -> int:
    """At most `most` of them; how many."""
    return connection.execute(_DROP, (before, most)).rowcount
