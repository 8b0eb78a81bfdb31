"""Accounts and their keys."""

import hashlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from buntime.ids import BASE62, new_id, random_text
from buntime.scope import ACCOUNT_SCOPES, Scope

PREFIX = "acc_"  # of the ids of accounts
KEY_PREFIX = "btk_"
RANDOM_LENGTH = 32
CHECKSUM_LENGTH = 6
HINT_LENGTH = 8  # of the key's 42 characters: btk_ and four more


class AccountStatus(StrEnum):
    ACTIVE = "active"
    SUSPENDED = "suspended"  # calls are refused until it is resumed
    DELETED = "deleted"  # calls are refused for good, and its sessions are deleted


@dataclass(frozen=True, slots=True)
class Account:
    id: str  # acc_ + 16 of a-z0-9
    plan: str
    created_at: int  # Unix seconds
    status: AccountStatus = AccountStatus.ACTIVE
    overrides: Mapping[str, object] = field(default_factory=dict)  # see plan.with_overrides


@dataclass(frozen=True, slots=True)
class Key:
    """An API key as it is stored. The secret is shown once and never stored."""

    id: str  # key_ + 12 of a-z0-9
    account: str
    hash: str  # sha256 of the whole secret, hex
    hint: str  # the first characters of the secret, to tell keys apart in a list
    created_at: int
    revoked_at: int | None = None
    name: str | None = None
    scopes: frozenset[Scope] = ACCOUNT_SCOPES
    expires_at: int | None = None  # Unix seconds; None: never
    maker: str | None = None  # id of the key that made it; None: the command line on a server

    def is_valid(self, now: float) -> bool:
        """Whether calls with it are accepted."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def new_account(plan: str, now: int, overrides: Mapping[str, object] | None = None) -> Account:
    return Account(new_id(PREFIX, 16), plan, now, overrides=overrides or {})


def new_key(
    account_id: str,
    now: int,
    *,
    name: str | None = None,
    scopes: frozenset[Scope] = ACCOUNT_SCOPES,
    expires_at: int | None = None,
    maker: str | None = None,
) -> tuple[Key, str]:
    """A key and its secret."""
    secret = new_key_secret()
    hashed, hint = hash_key(secret), secret[:HINT_LENGTH]
    return Key(new_id("key_", 12), account_id, hashed, hint, now, None, name, scopes, expires_at, maker), secret


def _checksum(body: str) -> str:
    number, letters = zlib.crc32(body.encode()), ""
    for _ in range(CHECKSUM_LENGTH):
        number, rest = divmod(number, 62)
        letters = BASE62[rest] + letters
    return letters


def new_key_secret() -> str:
    """`btk_`, 32 characters of base62 randomness, 6 of checksum."""
    body = random_text(BASE62, RANDOM_LENGTH)
    return KEY_PREFIX + body + _checksum(body)


def is_well_formed(secret: str) -> bool:
    """Whether it can be a key at all. A mistyped key is refused without a look-up."""
    body, checksum = secret[4 : 4 + RANDOM_LENGTH], secret[4 + RANDOM_LENGTH :]
    return (
        secret.startswith(KEY_PREFIX)
        and len(secret) == len(KEY_PREFIX) + RANDOM_LENGTH + CHECKSUM_LENGTH
        and secret.isascii()
        and _checksum(body) == checksum
    )


def hash_key(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
