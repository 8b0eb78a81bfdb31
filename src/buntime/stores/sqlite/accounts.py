"""Accounts and keys in SQL. The store's writer and the command line use these functions, each with its own connection.

Call the functions that change something inside a transaction.
"""

import json
import sqlite3
from collections.abc import Sequence

from buntime.account import Account, AccountStatus, Key
from buntime.errors import ResourceLimitExceeded
from buntime.scope import Scope, in_order

_COLUMNS = "id, account, hash, hint, created_at, revoked_at, name, scopes, expires_at, maker"
_VALID = "revoked_at IS NULL AND coalesce(expires_at > :now, TRUE)"
_COUNT_VALID = f"SELECT count(*) FROM keys WHERE account = :account AND {_VALID}"
_FORGET = f"""
DELETE FROM keys WHERE id IN (
  SELECT id FROM keys WHERE account = :account AND maker IS NOT NULL AND NOT ({_VALID})
  ORDER BY created_at DESC, id LIMIT -1 OFFSET :limit
)
"""


def add_account(connection: sqlite3.Connection, account: Account) -> None:
    """Raises ValueError if the id is taken."""
    row = (
        account.id,
        account.plan,
        account.created_at,
        account.status.value,
        json.dumps(account.overrides, default=dict),
    )
    try:
        connection.execute("INSERT INTO accounts (id, plan, created_at, status, overrides) VALUES (?, ?, ?, ?, ?)", row)
    except sqlite3.IntegrityError as refused:
        raise ValueError(f"account id {account.id} is taken") from refused


def get_account(connection: sqlite3.Connection, account_id: str) -> Account | None:
    row = connection.execute("SELECT * FROM accounts WHERE id = ?", (account_id,)).fetchone()
    return None if row is None else _account(row)


def list_accounts(connection: sqlite3.Connection) -> Sequence[Account]:
    """Oldest first, ties by id."""
    return [_account(row) for row in connection.execute("SELECT * FROM accounts ORDER BY created_at, id")]


def set_account_status(connection: sqlite3.Connection, account_id: str, status: AccountStatus) -> bool:
    done = connection.execute(
        "UPDATE accounts SET status = ? WHERE id = ? AND status <> 'deleted'", (status.value, account_id)
    )
    return done.rowcount == 1


def count_sessions(connection: sqlite3.Connection, account_id: str) -> int:
    """Without those that are being deleted."""
    row = connection.execute("SELECT sessions FROM session_counts WHERE account = ?", (account_id,)).fetchone()
    return 0 if row is None else int(row["sessions"])


def add_key(connection: sqlite3.Connection, key: Key, limit: int | None = None) -> None:
    """Raises ValueError if the id or the hash is taken, or if the account does not exist. `limit`: see
    `ports.Store`."""
    if limit is not None:
        asked = {"account": key.account, "now": key.created_at, "limit": limit}
        if connection.execute(_COUNT_VALID, asked).fetchone()[0] >= limit:
            raise ResourceLimitExceeded("keys", limit, "account", "")
        connection.execute(_FORGET, asked)
    scopes = json.dumps(in_order(key.scopes))
    first = (key.id, key.account, key.hash, key.hint, key.created_at, key.revoked_at)
    row = (*first, key.name, scopes, key.expires_at, key.maker)
    try:
        connection.execute(f"INSERT INTO keys ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    except sqlite3.IntegrityError as refused:
        raise ValueError(f"key {key.id}: id or hash is taken, or no account {key.account}") from refused


def list_keys(connection: sqlite3.Connection, account_id: str | None = None) -> Sequence[Key]:
    """Oldest first, ties by id. Includes revoked keys."""
    which, asked = ("", ()) if account_id is None else ("WHERE account = ?", (account_id,))
    rows = connection.execute(f"SELECT {_COLUMNS} FROM keys {which} ORDER BY created_at, id", asked)
    return [_key(row) for row in rows]


def revoke_key(connection: sqlite3.Connection, key_id: str, now: int) -> bool:
    done = connection.execute("UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (now, key_id))
    return done.rowcount == 1


def find_key(connection: sqlite3.Connection, key_hash: str) -> tuple[Key, Account] | None:
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM keys WHERE hash = ? AND revoked_at IS NULL", (key_hash,)
    ).fetchone()
    if row is None:
        return None
    account = get_account(connection, row["account"])
    assert account is not None  # keys refer to accounts
    return _key(row), account


def _account(row: sqlite3.Row) -> Account:
    return Account(
        id=row["id"],
        plan=row["plan"],
        created_at=row["created_at"],
        status=AccountStatus(row["status"]),
        overrides=json.loads(row["overrides"]),
    )


def _key(row: sqlite3.Row) -> Key:
    return Key(
        id=row["id"],
        account=row["account"],
        hash=row["hash"],
        hint=row["hint"],
        created_at=row["created_at"],
        revoked_at=row["revoked_at"],
        name=row["name"],
        scopes=frozenset(map(Scope, json.loads(row["scopes"]))),
        expires_at=row["expires_at"],
        maker=row["maker"],
    )
