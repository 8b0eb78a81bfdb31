"""Who sends a request, and what their plan allows."""

from dataclasses import dataclass

from buntime.account import Account, Key
from buntime.plan import Plan


@dataclass(frozen=True, slots=True)
class Caller:
    account: Account
    key: Key
    plan: Plan
