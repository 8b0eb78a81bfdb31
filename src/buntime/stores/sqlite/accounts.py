"""Accounts and keys in SQL. The store's writer and the command line use these functions, each with its own connection.

Call the functions that change something inside a transaction.
"""

import sqlite3
from collections.abc import Sequence

from buntime.account import Account, AccountStatus, Key
from buntime.errors import ResourceLimitExceeded
from buntime.stores.rows.accounts import account_of, account_row, key_of, key_row

_ADD_ACCOUNT = """
INSERT INTO accounts (id, plan, created_at, status, overrides) VALUES (:id, :plan, :created_at, :status, :overrides)
"""

_INACTIVE = "SELECT * FROM accounts WHERE status <> 'active' ORDER BY created_at, id"

_COLUMNS = "id, account, hash, hint, created_at, revoked_at, name, scopes, expires_at, maker"
_ADD_KEY = f"""
INSERT INTO keys ({_COLUMNS})
VALUES (:id, :account, :hash, :hint, :created_at, :revoked_at, :name, :scopes, :expires_at, :maker)
"""
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
    try:
        connection.execute(_ADD_ACCOUNT, account_row(account))
    except sqlite3.IntegrityError as refused:
        raise ValueError(f"account id {account.id} is taken") from refused


def get_account(connection: sqlite3.Connection, account_id: str) -> Account | None:
    row = connection.execute("SELECT * FROM accounts WHERE id = ?", (account_id,)).fetchone()
    return None if row is None else account_of(row)


def list_accounts(connection: sqlite3.Connection) -> Sequence[Account]:
    """Oldest first, ties by id."""
    return [account_of(row) for row in connection.execute("SELECT * FROM accounts ORDER BY created_at, id")]


def inactive_accounts(connection: sqlite3.Connection) -> Sequence[Account]:
    return [account_of(row) for row in connection.execute(_INACTIVE)]


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
    try:
        connection.execute(_ADD_KEY, key_row(key))
    except sqlite3.IntegrityError as refused:
        raise ValueError(f"key {key.id}: id or hash is taken, or no account {key.account}") from refused


def list_keys(connection: sqlite3.Connection, account_id: str | None = None) -> Sequence[Key]:
    """Oldest first, ties by id. Includes revoked keys."""
    which, asked = ("", ()) if account_id is None else ("WHERE account = ?", (account_id,))
    rows = connection.execute(f"SELECT {_COLUMNS} FROM keys {which} ORDER BY created_at, id", asked)
    return [key_of(row) for row in rows]


def revoke_key(connection: sqlite3.Connection, key_id: str, now: int) -> bool:
    done = connection.execute("UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (now, key_id))
    return done.rowcount == 1


def count_changes(connection: sqlite3.Connection) -> int | None:
    """A number that differs after every change of an account or a key. None: somebody has removed it."""
    row = connection.execute("SELECT number FROM account_changes").fetchone()
    return None if row is None else int(row[0])


def find_key(connection: sqlite3.Connection, key_hash: str) -> tuple[Key, Account] | None:
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM keys WHERE hash = ? AND revoked_at IS NULL", (key_hash,)
    ).fetchone()
    if row is None:
        return None
    account = get_account(connection, row["account"])
    assert account is not None  # keys refer to accounts
    return key_of(row), account
