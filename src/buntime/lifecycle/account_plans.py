"""The plans of accounts, with the accounts' own numbers."""

from collections.abc import Mapping

from buntime.plan import Plan, with_overrides
from buntime.ports import Store


class AccountPlans:
    def __init__(self, store: Store, plans: Mapping[str, Plan]) -> None:
        """`plans`: by name."""
        self._store = store
        self._plans = plans

    async def of(self, account_id: str) -> Plan | None:
        """None where the account or its plan is gone."""
        account = await self._store.get_account(account_id)
        plan = None if account is None else self._plans.get(account.plan)
        return None if account is None or plan is None else with_overrides(plan, account.overrides)
