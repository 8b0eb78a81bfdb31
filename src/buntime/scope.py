"""What a key may do. Each operation of the API needs one scope."""

from collections.abc import Iterable
from enum import StrEnum


class Scope(StrEnum):
    SESSIONS_READ = "sessions:read"  # list and show sessions and snapshots
    SESSIONS_WRITE = "sessions:write"  # all that changes or uses a session, its files too
    ACCOUNT_READ = "account:read"  # the account, its keys without their secrets, its images
    ACCOUNT_WRITE = "account:write"  # make and remove keys and images
    SECRETS_USE = "secrets:use"  # bind a secret to a session
    SECRETS_WRITE = "secrets:write"  # store and remove secrets
    OPERATOR = "operator"  # read what the server knows of all accounts; only the server's command line gives it


ACCOUNT_SCOPES = frozenset(Scope) - {Scope.OPERATOR}  # of a key that was made without scopes


def in_order(scopes: Iterable[Scope]) -> list[Scope]:
    """Each once, in the order of `Scope`."""
    given = frozenset(scopes)
    return [scope for scope in Scope if scope in given]
