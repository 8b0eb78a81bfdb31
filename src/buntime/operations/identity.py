"""Who calls: the account of an API key, and what its plan allows."""

from collections.abc import Callable, Mapping

from buntime import errors
from buntime.account import Account, AccountStatus, hash_key, is_well_formed
from buntime.caller import Caller
from buntime.plan import Plan, with_overrides
from buntime.ports import Store

MOST_KNOWN = 10_000  # accounts


class Identity:
    def __init__(self, store: Store, plans: Mapping[str, Plan], clock: Callable[[], float]) -> None:
        self._store = store
        self._plans = plans
        self._clock = clock
        self._own: dict[str, tuple[Account, Plan]] = {}  # of accounts with numbers of their own

    async def identify(self, secret: str | None) -> Caller:
        """The caller with this key, of a suspended account too: its calls count against its rate limit.

        Raises Unauthorized.
        """
        if not secret:
            raise errors.Unauthorized("Send an API key: Authorization: Bearer btk_…")
        if not is_well_formed(secret):
            raise errors.Unauthorized("The API key is malformed. Keys start with btk_ and carry a checksum.")
        found = await self._store.find_key(hash_key(secret))
        if found is None or found[1].status is AccountStatus.DELETED or not found[0].is_valid(self._clock()):
            raise errors.Unauthorized("The API key is not known, has been revoked or has expired.")
        key, account = found
        return Caller(account, key, self.plan_of(account))

    def require_active(self, caller: Caller) -> None:
        """Raises Forbidden for a suspended account."""
        if caller.account.status is AccountStatus.SUSPENDED:
            raise errors.Forbidden("This account is suspended.", plan=caller.plan.name)

    def plan_of(self, account: Account) -> Plan:
        """The account's plan with its own numbers. Raises Forbidden when the plan no longer exists."""
        plan = self._plans.get(account.plan)
        if plan is None:
            raise errors.Forbidden(f"The plan {account.plan!r} of this account does not exist any more.")
        if not account.overrides:
            return plan
        known = self._own.get(account.id)
        if known is None or known[0] != account:  # it has changed, as the store has it
            if len(self._own) >= MOST_KNOWN:
                self._own.clear()
            known = self._own[account.id] = (account, with_overrides(plan, account.overrides))
        return known[1]
