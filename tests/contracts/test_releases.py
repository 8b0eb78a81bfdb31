"""A session that its host gives up is nobody's. The fake and PostgreSQL agree on when that is possible."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from buntime.errors import NotOwner, StaleSession
from buntime.session import Session, State
from buntime.stores.postgres.store import PostgresStore
from buntime.testing.store import FakeStore
from tests.contracts.conftest import POSTGRES
from tests.contracts.examples import NOW, account, session
from tests.contracts.postgres import LOCAL, emptied, opened_as

type Releasing = FakeStore | PostgresStore


@pytest.fixture(params=["fake", POSTGRES])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Releasing]:
    store: Releasing = FakeStore()
    if request.param == "postgres":
        url: str = request.getfixturevalue("postgres_url")
        await emptied(url)
        store = await opened_as(LOCAL, url)
    await store.add_account(account())
    yield store
    await store.close()


async def added(store: Releasing, **fields: object) -> Session:
    asleep = replace(session(state=State.DEEP_SLEEP), archived=True)
    await store.add_session(replace(asleep, **fields), None, 9)  # type: ignore[arg-type]
    return await stored(store)


async def stored(store: Releasing) -> Session:
    found = await store.get_session("ses_one")
    assert found is not None
    return found


async def test_a_sleeping_session_is_released_once(store: Releasing) -> None:
    before = await added(store)
    assert await store.release(before)
    after = await stored(store)
    assert after == replace(before, host="", version=before.version + 1)
    assert not await store.release(before)
    assert not await store.release(after), "nobody's session is nobody's to give up"
    assert await stored(store) == after


async def test_activity_that_was_noted_stays(store: Releasing) -> None:
    before = await added(store)
    await store.touch_session(before.id, NOW + 50)
    assert await store.release(before)
    assert (await stored(store)).last_active == NOW + 50


@pytest.mark.parametrize(
    "fields",
    [{"state": State.ACTIVE}, {"state": State.IDLE}, {"state": State.DELETING}, {"archived": False}],
    ids=["active", "idle", "deleting", "not archived"],
)
async def test_a_session_that_no_other_host_could_wake_is_not_released(
    store: Releasing, fields: dict[str, object]
) -> None:
    before = await added(store, **fields)
    assert not await store.release(before)
    assert await stored(store) == before


async def test_a_session_that_got_another_owner_or_epoch_is_not_released(store: Releasing) -> None:
    before = await added(store)
    assert not await store.release(replace(before, host="hst_other"))
    assert not await store.release(replace(before, epoch=before.epoch + 1))
    assert not await store.release(replace(before, id="ses_unknown"))
    assert await stored(store) == before


async def test_a_change_of_the_session_as_it_was_before_is_stale(store: Releasing) -> None:
    before = await added(store)
    assert await store.release(before)
    with pytest.raises((StaleSession, NotOwner)):
        await store.change_session(before, replace(before, metadata={"a": 1}))
    assert (await stored(store)).host == ""
