"""All hosts of a fleet choose one default image. The fake and PostgreSQL agree on which."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from buntime.fleet.members import Description
from buntime.fleet.postgres.members import PostgresMembers
from buntime.lifecycle.saved_images import DefaultImages
from buntime.testing.default_images import FakeDefaultImages
from tests.contracts.conftest import POSTGRES
from tests.contracts.postgres import emptied, opened_as

type Hosts = tuple[DefaultImages, DefaultImages]


@pytest.fixture(params=["fake", POSTGRES])
async def hosts(request: pytest.FixtureRequest) -> AsyncIterator[Hosts]:
    if request.param == "fake":
        first = FakeDefaultImages("hst_a")
        yield first, FakeDefaultImages("hst_b", first)
        return
    url: str = request.getfixturevalue("postgres_url")
    await emptied(url)
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(AsyncConnectionPool[AsyncConnection](url, min_size=1, open=False))
        members, stores = PostgresMembers(pool), []
        for name in ("hst_a", "hst_b"):
            store = await opened_as(await members.join(name, Description(f"{name}:1", "1")), url)
            stack.push_async_callback(store.close)
            stores.append(store)
        yield stores[0], stores[1]


async def test_the_first_image_of_a_recipe_is_that_of_all_hosts(hosts: Hosts) -> None:
    a, b = hosts
    assert await a.default_image("img-1") is None
    assert await b.default_image("img-1") is None
    assert await b.choose_default_image("img-1", "root-b") == "root-b"
    assert await a.choose_default_image("img-1", "root-a") == "root-b"
    assert await a.default_image("img-1") == "root-b"
    assert await a.default_images() == {"root-b"}


async def test_of_hosts_that_choose_at_once_one_wins(hosts: Hosts) -> None:
    for host in hosts:
        await host.default_image("img-1")
    chosen = await asyncio.gather(*(hosts[n % 2].choose_default_image("img-1", f"root-{n}") for n in range(10)))
    assert len(set(chosen)) == 1
    assert await hosts[0].default_image("img-1") == chosen[0]


async def test_an_image_that_cannot_be_used_is_replaced_once(hosts: Hosts) -> None:
    a, b = hosts
    for host in hosts:
        await host.default_image("img-1")
    await a.choose_default_image("img-1", "root-lost")
    assert await a.choose_default_image("img-1", "root-a", instead_of="root-lost") == "root-a"
    assert await b.choose_default_image("img-1", "root-b", instead_of="root-lost") == "root-a"


async def test_an_image_is_kept_until_the_last_host_has_another_recipe(hosts: Hosts) -> None:
    """As in a rolling upgrade."""
    a, b = hosts
    for host in hosts:
        await host.default_image("img-1")
    await a.choose_default_image("img-1", "root-1")
    assert await b.default_image("img-2") is None
    await b.choose_default_image("img-2", "root-2")
    assert await b.default_images() == {"root-1", "root-2"}
    assert await a.default_image("img-2") == "root-2"
    assert await a.default_images() == {"root-2"}
