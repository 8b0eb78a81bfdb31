"""The store is lost during a commit: what was to be stored may be there, so its files must stay."""

from collections.abc import Callable

import pytest

from buntime.errors import CommitUnknown
from tests.app.serving import Api
from tests.app.sleeping import content_of, deep_sleep, write
from tests.app.test_snapshots import awake, take

type Lose = Callable[[str], None]


@pytest.fixture
def lose(api: Api, monkeypatch: pytest.MonkeyPatch) -> Lose:
    """From now on, this method of the store does its work and does not know it."""

    def losing(method: str) -> None:
        done = getattr(api.store, method)

        async def lost(*given: object, **named: object) -> None:
            await done(*given, **named)
            raise CommitUnknown("The server lost its database.")

        monkeypatch.setattr(api.store, method, lost)

    return losing


async def test_a_create_keeps_the_session(api: Api, lose: Lose) -> None:
    lose("add_session")
    assert (await api.call("POST", "/sessions/create", {})).refusal == (503, "unavailable")
    (made,) = await api.store.all_sessions()
    await write(api, made.id, "kept")
    assert await content_of(api, made.id) == "kept"


async def test_a_snapshot_keeps_its_layer(api: Api, lose: Lose) -> None:
    session = await awake(api)
    lose("add_snapshot")
    assert (await api.call("POST", f"/sessions/{session}/snapshots", {})).refusal == (503, "unavailable")
    ((snapshot,), _) = await api.store.list_snapshots("acc_one0000000000000", now=0)
    assert await content_of(api, await api.session(snapshotId=snapshot.id)) == "kept"


async def test_an_image_keeps_its_layer(api: Api, lose: Lose) -> None:
    session = await awake(api)
    lose("add_made_image")
    answer = await api.call("POST", "/images/create", {"sessionId": session, "name": "mine"})
    assert answer.refusal == (503, "unavailable")
    assert await content_of(api, await api.session(image="mine")) == "kept"


async def test_a_fork_keeps_the_layer_that_a_repeated_request_uses(api: Api, lose: Lose) -> None:
    session = await awake(api)
    lose("add_layer")
    fork = ("POST", f"/sessions/{session}/fork", {"count": 1})
    assert (await api.call(*fork, Idempotency_Key="once")).refusal == (503, "unavailable")
    (layer,) = await api.store.all_layers()
    assert api.sandboxes.volumes.exists(layer.id)


@pytest.mark.parametrize("sleeps", [False, True], ids=["active", "asleep"])
async def test_a_restore_keeps_the_new_files_and_those_before(api: Api, lose: Lose, sleeps: bool) -> None:
    session = await awake(api)
    snapshot = await take(api, session)
    await write(api, session, "before")
    if sleeps:
        await deep_sleep(api, session)
    lose("restore_session")
    answer = await api.call("POST", f"/sessions/{session}/restore", {"snapshotId": snapshot})
    assert answer.refusal == (503, "unavailable")
    assert await content_of(api, session) == "kept"
    found, _ = await api.store.list_snapshots("acc_one0000000000000", now=0)
    (before,) = [one for one in found if one.is_automatic]
    assert await content_of(api, await api.session(snapshotId=before.id)) == "before"
