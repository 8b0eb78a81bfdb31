"""Answers to idempotent requests in SQL."""

import sqlite3
from dataclasses import asdict

from buntime.stores.rows.answers import PackedAnswer, answer_of

_ADD = """
INSERT INTO answers (account, key, fingerprint, status, created_at, headers, packed, body)
VALUES (:account, :key, :fingerprint, :status, :created_at, :headers, :packed, :body)
ON CONFLICT (account, key) DO NOTHING
"""

_DROP = """
DELETE FROM answers
WHERE rowid IN (SELECT rowid FROM answers WHERE created_at < ? ORDER BY created_at LIMIT ?)
"""


def add_answer(connection: sqlite3.Connection, stored: PackedAnswer) -> bool:
    """Returns False and changes nothing if this account and key already have an answer."""
    return connection.execute(_ADD, asdict(stored)).rowcount == 1


def change_answer(connection: sqlite3.Connection, stored: PackedAnswer) -> None:
    """Replaces the body. Changes nothing if this account and key have no answer."""
    connection.execute(
        "UPDATE answers SET packed = ?, body = ? WHERE account = ? AND key = ?",
        (int(stored.packed), stored.body, stored.account, stored.key),
    )


def find_answer(connection: sqlite3.Connection, account_id: str, key: str) -> PackedAnswer | None:
    row = connection.execute("SELECT * FROM answers WHERE account = ? AND key = ?", (account_id, key)).fetchone()
    return None if row is None else answer_of(row)


def drop_answers(connection: sqlite3.Connection, before: int, most: int) -> int:
    """Deletes at most `most` answers and returns how many."""
    return connection.execute(_DROP, (before, most)).rowcount
