"""Accounts and keys in SQL. The store's writer and the command line use these functions, each with its own connection.

Call the functions that change something inside a transaction.
"""

import json
import sqlite3
from collections.abc import Sequence

from buntime.account import Account, AccountStatus, Key

_FIND_KEY = """
SELECT keys.id AS key_id, keys.created_at AS key_created_at, keys.account, hash, hint, revoked_at,
       accounts.id, plan, accounts.created_at, status, overrides
FROM keys JOIN accounts ON accounts.id = keys.account
WHERE hash = ? AND revoked_at IS NULL
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


def add_key(connection: sqlite3.Connection, key: Key) -> None:
    """Raises ValueError if the id or the hash is taken, or if the account does not exist."""
    row = (key.id, key.account, key.hash, key.hint, key.created_at, key.revoked_at)
    try:
        connection.execute(
            "INSERT INTO keys (id, account, hash, hint, created_at, revoked_at) VALUES (?, ?, ?, ?, ?, ?)", row
        )
    except sqlite3.IntegrityError as refused:
        raise ValueError(f"key {key.id}: id or hash is taken, or no account {key.account}") from refused


def list_keys(connection: sqlite3.Connection, account_id: str | None = None) -> Sequence[Key]:
    """Oldest first, ties by id. Includes revoked keys."""
    rows = connection.execute(
        "SELECT * FROM keys WHERE account = coalesce(?, account) ORDER BY created_at, id", (account_id,)
    )
    return [_key(row) for row in rows]


def revoke_key(connection: sqlite3.Connection, key_id: str, now: int) -> bool:
    done = connection.execute("UPDATE keys SET revoked_at = ? WHERE id = ? AND revoked_at IS NULL", (now, key_id))
    return done.rowcount == 1


def find_key(connection: sqlite3.Connection, key_hash: str) -> tuple[Key, Account] | None:
    row = connection.execute(_FIND_KEY, (key_hash,)).fetchone()
    if row is None:
        return None
    key = Key(row["key_id"], row["account"], row["hash"], row["hint"], row["key_created_at"])
    return key, _account(row)


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
    )
