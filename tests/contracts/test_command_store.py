"""The store as commands on a server's host use it, beside the server."""

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from buntime.account import AccountStatus
from buntime.config import Config
from buntime.errors import ResourceLimitExceeded
from buntime.event import AccountEvent, EventType
from buntime.ports import Store
from buntime.stores.command_store import CommandStore
from buntime.stores.opening import command_store, opened_database, opened_file
from buntime.stores.unusable import StoreUnusable
from buntime.webhook import SigningSecret, Webhook
from tests.contracts.conftest import POSTGRES
from tests.contracts.examples import NOW, account, key, named, session
from tests.contracts.postgres import LOCAL, Server, emptied

CREATED = AccountEvent("evt_one", "acc_one", EventType.ACCOUNT_CREATED, NOW, None, {})
HOOK = Webhook("whk_one", "", "https://example.com", (SigningSecret("sealed"),), NOW)


@pytest.fixture(params=["sqlite", POSTGRES])
async def config(request: pytest.FixtureRequest, tmp_path: Path) -> Config:
    if request.param == "sqlite":
        return Config(data_dir=tmp_path)
    url: str = request.getfixturevalue("postgres_url")
    await emptied(url)
    return Config(data_dir=tmp_path, store=url)


@pytest.fixture
async def store(config: Config) -> AsyncIterator[Store]:
    """That of the running server."""
    opening = opened_database(config, LOCAL.host, lambda: LOCAL) if config.store else opened_file(config)
    async with opening as store:
        yield store


@pytest.fixture
def command(config: Config, store: Store) -> AbstractContextManager[CommandStore]:
    return command_store(config)


async def test_a_server_sees_the_account_and_key_of_a_command(
    command: AbstractContextManager[CommandStore], store: Store
) -> None:
    with command as commands:
        commands.add_account(account())
        commands.add_key(key())
        commands.add_events([CREATED])
    assert await store.find_key(key().hash) == (key(), account())
    assert [found.event for found in await store.list_events("acc_one")] == [CREATED]


async def test_a_command_that_fails_changes_nothing(
    command: AbstractContextManager[CommandStore], store: Store
) -> None:
    def fail() -> None:
        with command as commands:
            commands.add_account(account())
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert await store.list_accounts() == []


async def test_a_command_reads_what_the_server_has_stored(
    command: AbstractContextManager[CommandStore], store: Store
) -> None:
    await store.add_account(account())
    await store.add_key(key())
    await store.add_session(session(), None, 1)
    await store.add_image(named(account=""))
    with command as commands:
        assert commands.get_account("acc_one") == account()
        assert commands.list_accounts() == [account()]
        assert (commands.list_keys(), commands.list_keys("acc_two")) == ([key()], [])
        assert commands.count_sessions("acc_one") == 1
        assert commands.list_images("") == [named(account="")]
        assert commands.used_images() == {"img", "img_one"}


async def test_a_command_changes_accounts_keys_images_and_webhooks(
    command: AbstractContextManager[CommandStore], store: Store
) -> None:
    await store.add_account(account())
    await store.add_key(key())
    await store.add_webhook(replace(HOOK, id="whk_two", account="acc_one"), None, 9)
    with command as commands:
        assert commands.set_account_status("acc_one", AccountStatus.SUSPENDED)
        assert commands.revoke_key("key_one", NOW)
        assert not commands.revoke_key("key_one", NOW)
        commands.add_image(named(account=""))
        commands.add_webhook(HOOK, 1)
        with pytest.raises(ResourceLimitExceeded):
            commands.add_webhook(replace(HOOK, id="whk_three"), 1)
        assert (commands.get_webhook("whk_one"), commands.list_webhooks("")) == (HOOK, [HOOK])
        commands.remove_webhooks_of("acc_one")
    found = await store.get_account("acc_one")
    assert found is not None
    assert found.status is AccountStatus.SUSPENDED
    assert await store.find_key(key().hash) is None
    assert await store.list_webhooks("acc_one") == []
    assert await store.list_images("acc_one") == [named(account="")]


async def test_a_command_removes_an_image_and_a_webhook(
    command: AbstractContextManager[CommandStore], store: Store
) -> None:
    await store.add_image(named(account=""))
    await store.add_webhook(HOOK, None, 9)
    with command as commands:
        assert commands.remove_image("", "mine")
        assert not commands.remove_image("", "mine")
        assert commands.remove_webhook("whk_one")
    assert (await store.list_images(""), await store.get_webhook("whk_one")) == ([], None)


@pytest.mark.postgres
def test_a_command_refuses_a_database_that_no_server_has_used(postgres_server: Server, tmp_path: Path) -> None:
    config = Config(data_dir=tmp_path, store=postgres_server.create("unused"))
    with pytest.raises(StoreUnusable, match="No server ever ran"), command_store(config):
        pass
