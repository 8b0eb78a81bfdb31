"""Who sends a request, and what their plan allows."""

from dataclasses import dataclass

from buntime.account import Account, Key
from buntime.errors import MissingScope
from buntime.plan import Plan
from buntime.scope import Scope, in_order


@dataclass(frozen=True, slots=True)
class Caller:
    account: Account
    key: Key
    plan: Plan

    def require(self, scope: Scope) -> None:
        """Raises MissingScope if the key does not have it."""
        if scope not in self.key.scopes:
            raise MissingScope(scope, in_order(self.key.scopes))
