"""Whose plan a request gets, by numbers of the account's own."""

from dataclasses import replace

from buntime.account import Account
from buntime.admin.plan_settings import plans_of
from buntime.config import Config
from buntime.operations.identity import Identity
from buntime.testing.store import FakeStore


def test_an_accounts_own_numbers_are_read_once_until_they_change() -> None:
    identity = Identity(FakeStore(), plans_of(Config()), lambda: 0.0)
    account = Account("acc_one", "free", 0, overrides={"sessions": 3})
    plan = identity.plan_of(account)
    assert plan.sessions == 3
    assert identity.plan_of(replace(account)) is plan  # a store may make a new object for each request
    assert identity.plan_of(replace(account, overrides={"sessions": 4})).sessions == 4
