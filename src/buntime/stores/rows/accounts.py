"""Accounts and keys."""

import json

from buntime.account import Account, AccountStatus, Key
from buntime.scope import Scope, in_order
from buntime.stores.rows.row import Row, Values


def account_row(account: Account) -> Values:
    return {
        "id": account.id,
        "plan": account.plan,
        "created_at": account.created_at,
        "status": account.status.value,
        "overrides": json.dumps(account.overrides, default=dict),
    }


def account_of(row: Row) -> Account:
    return Account(
        id=row["id"],
        plan=row["plan"],
        created_at=row["created_at"],
        status=AccountStatus(row["status"]),
        overrides=json.loads(row["overrides"]),
    )


def key_row(key: Key) -> Values:
    return {
        "id": key.id,
        "account": key.account,
        "hash": key.hash,
        "hint": key.hint,
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
        "name": key.name,
        "scopes": json.dumps(in_order(key.scopes)),
        "expires_at": key.expires_at,
        "maker": key.maker,
    }


def key_of(row: Row) -> Key:
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
