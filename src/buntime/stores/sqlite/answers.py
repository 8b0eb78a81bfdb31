"""Answers to idempotent requests in SQL. Large bodies are compressed."""

import json
import sqlite3
import zlib
from dataclasses import dataclass

from buntime.ports import Answer

PACKED_FROM = 1 << 10  # bytes; smaller bodies are not worth compressing
FAST_LEVEL = 1  # of zlib, because the JSON bodies live only for a day

_ADD = """
INSERT INTO answers (account, key, fingerprint, status, created_at, headers, packed, body)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (account, key) DO NOTHING
"""

_DROP = """
DELETE FROM answers
WHERE rowid IN (SELECT rowid FROM answers WHERE created_at < ? ORDER BY created_at LIMIT ?)
"""


@dataclass(frozen=True, slots=True)
class PackedAnswer:
    """An answer as the store has it, with a compressed body if that saves space."""

    account: str
    key: str
    fingerprint: str
    status: int
    created_at: int
    headers: str  # a JSON object
    packed: bool
    body: bytes


def pack(answer: Answer) -> PackedAnswer:
    """Takes about 10 ms for each MB of the body."""
    packed = len(answer.body) > PACKED_FROM
    body = zlib.compress(answer.body, FAST_LEVEL) if packed else answer.body
    headers = json.dumps(answer.headers, default=dict)
    return PackedAnswer(
        answer.account, answer.key, answer.fingerprint, answer.status, answer.created_at, headers, packed, body
    )


def unpack(stored: PackedAnswer) -> Answer:
    body = zlib.decompress(stored.body) if stored.packed else stored.body
    headers = json.loads(stored.headers)
    return Answer(stored.account, stored.key, stored.fingerprint, stored.status, body, stored.created_at, headers)


def add_answer(connection: sqlite3.Connection, stored: PackedAnswer) -> bool:
    """Returns False and changes nothing if this account and key already have an answer."""
    row = (
        stored.account,
        stored.key,
        stored.fingerprint,
        stored.status,
        stored.created_at,
        stored.headers,
        int(stored.packed),
        stored.body,
    )
    return connection.execute(_ADD, row).rowcount == 1


def change_answer(connection: sqlite3.Connection, stored: PackedAnswer) -> None:
    """Replaces the body. Changes nothing if this account and key have no answer."""
    connection.execute(
        "UPDATE answers SET packed = ?, body = ? WHERE account = ? AND key = ?",
        (int(stored.packed), stored.body, stored.account, stored.key),
    )


def find_answer(connection: sqlite3.Connection, account_id: str, key: str) -> PackedAnswer | None:
    row = connection.execute(
        "SELECT account, key, fingerprint, status, created_at, headers, packed, body FROM answers "
        "WHERE account = ? AND key = ?",
        (account_id, key),
    ).fetchone()
    if row is None:
        return None
    account, key, fingerprint, status, created_at, headers, packed, body = row
    return PackedAnswer(account, key, fingerprint, status, created_at, headers, bool(packed), body)


def drop_answers(connection: sqlite3.Connection, before: int, most: int) -> int:
    """Deletes at most `most` answers and returns how many."""
    return connection.execute(_DROP, (before, most)).rowcount
