"""Preview tokens in SQL. Changes run inside a transaction and check the stored state."""

import sqlite3

from buntime.errors import SessionNotFound, TooManyTokens
from buntime.ports import PreviewToken
from buntime.session import State

_COLUMNS = "hash, session, port, created_at, expires_at"


def add_preview_token(connection: sqlite3.Connection, token: PreviewToken, limit: int) -> None:
    """Raises SessionNotFound, TooManyTokens, and ValueError if the hash is taken."""
    found = connection.execute("SELECT state FROM sessions WHERE id = ?", (token.session,)).fetchone()
    if found is None or found["state"] == State.DELETING:
        raise SessionNotFound(token.session)
    valid = connection.execute(
        "SELECT count(*) FROM preview_tokens WHERE session = ? AND expires_at > ?", (token.session, token.created_at)
    ).fetchone()[0]
    if valid >= limit:
        raise TooManyTokens(limit)
    row = (token.hash, token.session, token.port, token.created_at, token.expires_at)
    try:
        connection.execute(f"INSERT INTO preview_tokens ({_COLUMNS}) VALUES (?, ?, ?, ?, ?)", row)
    except sqlite3.IntegrityError as refused:
        raise ValueError("the token's hash is taken") from refused


def find_preview_token(connection: sqlite3.Connection, token_hash: str) -> PreviewToken | None:
    row = connection.execute(f"SELECT {_COLUMNS} FROM preview_tokens WHERE hash = ?", (token_hash,)).fetchone()
    return None if row is None else PreviewToken(*row)


def revoke_preview_tokens(connection: sqlite3.Connection, session_id: str, token_hash: str | None) -> int:
    return connection.execute(
        "DELETE FROM preview_tokens WHERE session = ? AND hash = coalesce(?, hash)", (session_id, token_hash)
    ).rowcount


def drop_preview_tokens(connection: sqlite3.Connection, now: int) -> int:
    return connection.execute("DELETE FROM preview_tokens WHERE expires_at <= ?", (now,)).rowcount
