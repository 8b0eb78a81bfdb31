"""The fake's account and keys, as users' tests use them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from buntime_sdk import Forbidden, InvalidRequest, KeyNotFound
from buntime_sdk.testing import AsyncFakeBuntime, FakeBuntime

NOW = datetime(2024, 1, 19, 10, 30, tzinfo=UTC)
ALL = ("sessions:read", "sessions:write", "account:read", "account:write", "secrets:use", "secrets:write")


def test_a_key_is_made_listed_and_revoked() -> None:
    fake = FakeBuntime(clock=lambda: NOW)
    made = fake.keys.create(name="ci", scopes=["account:read", "sessions:read"], expires_in=60)
    assert (made.name, made.scopes, made.expires_at) == (
        "ci",
        ("sessions:read", "account:read"),
        NOW + timedelta(seconds=60),
    )
    assert made.key.startswith(made.hint)
    assert made.key not in repr(made)
    assert [key.key_id for key in fake.keys.list()][-1] == made.key_id
    fake.keys.delete(made.key_id)
    with pytest.raises(KeyNotFound):
        fake.keys.delete(made.key_id)
    assert len(list(fake.keys.list())) == 1


def test_the_events_of_a_key_name_it() -> None:
    fake = FakeBuntime(clock=lambda: NOW)
    made = fake.keys.create(name="ci", scopes=["account:read"])
    fake.keys.delete(made.key_id)
    created, revoked = fake.events.list().events
    named = {"keyId": made.key_id, "name": "ci", "hint": made.hint}
    assert {name: created.data[name] for name in named} == named
    assert (revoked.type, {name: revoked.data[name] for name in revoked.data if name != "by"}) == ("key.revoked", named)


def test_the_account_counts_what_there_is_and_shows_the_clients_key() -> None:
    fake = FakeBuntime()
    session = fake.sessions.create()
    session.snapshot()
    fake.images.create("app", session_id=session.id)
    account = fake.account()
    assert (account.usage.sessions, account.usage.snapshots, account.usage.images) == (1, 1, 1)
    assert (account.key.scopes, account.key.expires_at) == (ALL, None)
    assert account.limits.most_resource_limits.memory == 4096


def test_a_key_expires() -> None:
    now = [NOW]
    fake = FakeBuntime(clock=lambda: now[0])
    made = fake.keys.create(expires_in=60)
    now[0] += timedelta(seconds=60)
    assert made.key_id not in [key.key_id for key in fake.keys.list()]
    with pytest.raises(KeyNotFound):
        fake.keys.delete(made.key_id)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda fake: fake.keys.create(name=""), InvalidRequest),
        (lambda fake: fake.keys.create(scopes=[]), InvalidRequest),
        (lambda fake: fake.keys.create(scopes=["everything"]), InvalidRequest),
        (lambda fake: fake.keys.create(expires_in=0), InvalidRequest),
        (lambda fake: fake.keys.create(scopes=["operator"]), Forbidden),
    ],
)
def test_what_a_server_refuses_the_fake_refuses(make: Callable[[FakeBuntime], object], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        make(FakeBuntime())


async def test_keys_of_an_async_client_work_alike() -> None:
    fake = AsyncFakeBuntime()
    made = await fake.keys.create()
    assert [key.key_id async for key in fake.keys.list()][-1] == made.key_id
    assert (await fake.account()).plan == "paid"
