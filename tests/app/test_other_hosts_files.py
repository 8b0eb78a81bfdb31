"""Snapshots and images of accounts, where another host of the fleet has made or dropped them."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from buntime.image import NamedImage
from buntime.lifecycle import layers
from buntime.lifecycle.object_names import new_name
from buntime.ports import Peer
from buntime.session import SavedVolume
from buntime.testing.owners import FakeOwners
from tests.app.serving import Api, serving
from tests.app.sleeping import content_of, deep_sleep, stored_of, write
from tests.app.test_made_images import make
from tests.app.test_snapshots import awake, take
from tests.waiting import eventually

PEER = Peer("hst_other", "192.0.2.7:8443")


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    owners = FakeOwners()
    owners.is_alone = False
    async with serving(owners=owners) as served:
        yield served


async def saved(api: Api) -> None:
    await eventually(lambda: all(layer.saved for layer in api.store.layers.values()))


async def test_a_session_is_made_on_an_image_that_another_host_has_made(api: Api) -> None:
    assert (await make(api, sessionId=await awake(api))).status == 200
    await saved(api)
    api.sandboxes.made.clear()  # this host is the other one now
    session = await api.session(image="mine")
    assert await content_of(api, session) == "kept"


async def test_a_session_wakes_on_an_image_that_stands_on_one_of_another_host(api: Api) -> None:
    assert (await make(api, sessionId=await awake(api))).status == 200
    session = await api.session(image="mine")
    await write(api, session, "more")
    assert (await make(api, name="second", sessionId=session)).status == 200
    session = await api.session(image="second")
    await deep_sleep(api, session)
    await saved(api)
    api.sandboxes.made.clear()
    assert await content_of(api, session) == "more"
    assert len(api.sandboxes.made) == 2


async def test_of_a_layer_that_two_hosts_save_one_object_stays(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    save = api.store.save_layer

    async def second(layer: str, mine: SavedVolume) -> bool:
        theirs = new_name(api.store.layers[layer], mine.taken_at)
        api.archive.objects[theirs] = api.archive.objects[mine.name]
        assert await save(layer, replace(mine, name=theirs))
        return await save(layer, mine)

    monkeypatch.setattr(api.store, "save_layer", second)
    await take(api, await awake(api))
    await saved(api)
    (layer,) = api.store.layers.values()
    assert layer.saved
    named = layer.saved.name
    await eventually(lambda: [name for name in api.archive.objects if name.startswith(layer.id)] == [named])


async def test_what_another_host_has_dropped_goes_from_this_one(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that was made here, and never asked for since."""
    api.owners.on_duty = False
    snapshot = await take(api, await awake(api))
    (layer,) = api.store.layers
    await saved(api)
    assert (await call_delete(api, snapshot)) == 200
    await api.lifecycle.layers.tidy()
    assert layer in api.sandboxes.volumes, "the host with the duty has not dropped it yet"
    del api.store.layers[layer]
    monkeypatch.setattr(layers, "CAPTURE_SECONDS", 0.0)
    await api.lifecycle.layers.tidy()
    assert layer not in api.sandboxes.volumes


async def test_a_layer_that_no_store_has_yet_stays(api: Api) -> None:
    api.owners.on_duty = False
    session = await awake(api)
    _, layer = await api.lifecycle.layers.capture(session)
    await api.lifecycle.layers.tidy()
    assert layer.id in api.sandboxes.volumes


async def test_an_image_that_another_host_has_dropped_is_forgotten(api: Api) -> None:
    assert (await make(api, sessionId=await awake(api))).status == 200
    api.owners.on_duty = False
    await api.lifecycle.layers.tidy()
    assert api.sandboxes.made
    api.store.made_images.clear()
    await api.lifecycle.layers.tidy()
    assert not api.sandboxes.made


async def test_a_create_goes_to_the_host_that_alone_has_the_files(api: Api) -> None:
    api.archive.unreachable = True
    snapshot = await take(api, await awake(api))
    api.owners.best = (PEER, None)
    here = await api.call("POST", "/sessions/create", {"snapshotId": snapshot})
    assert here.status == 200, "no other host could make it"
    (layer,) = api.store.layers
    await api.sandboxes.volumes.remove(layer)
    api.owners.best = (None, PEER, PEER)  # of the fake's list, the first one after this host is left out
    there = await api.call("POST", "/sessions/create", {"snapshotId": snapshot})
    assert (there.status, there.headers.get("X-Accel-Redirect")) == (204, "@peer")
    api.owners.best = (None,)
    nowhere = await api.call("POST", "/sessions/create", {"snapshotId": snapshot})
    assert nowhere.refusal == (503, "unavailable")


async def call_delete(api: Api, snapshot: str) -> int:
    return (await api.call("DELETE", f"/snapshots/{snapshot}")).status


ADDED = "root-" + "0" * 32


async def added(api: Api) -> None:
    """An operator's image, which is on this host."""
    await api.store.add_image(NamedImage("python", ADDED, 1, 0))
    api.sandboxes.roots.here.add(ADDED)


async def test_a_host_puts_an_image_of_the_operator_into_the_archive_and_another_one_fetches_it(api: Api) -> None:
    await added(api)
    await api.lifecycle.layers.shared.look()
    (name,) = api.archive.objects
    assert name == f"images/{ADDED}"
    assert api.sandboxes.roots.files_of(ADDED) not in api.archive.objects[name], "it is sealed"
    api.sandboxes.roots.lacking.add(ADDED)
    session = await api.session(image="python")
    assert (await stored_of(api, session)).image == ADDED
    assert api.sandboxes.roots.has(ADDED)


async def test_a_sleeping_session_wakes_on_an_image_of_the_operator_that_another_host_has_saved(api: Api) -> None:
    await added(api)
    await api.lifecycle.layers.shared.look()
    session = await api.session(image="python")
    await write(api, session, "kept")
    await deep_sleep(api, session)
    api.sandboxes.roots.lacking.add(ADDED)
    assert await content_of(api, session) == "kept"


async def test_an_image_on_an_image_of_the_operator_brings_both(api: Api) -> None:
    await added(api)
    await api.lifecycle.layers.shared.look()
    session = await api.session(image="python")
    await write(api, session, "kept")
    assert (await make(api, sessionId=session)).status == 200
    await saved(api)
    api.sandboxes.made.clear()
    api.sandboxes.roots.lacking.add(ADDED)
    assert await content_of(api, await api.session(image="mine")) == "kept"


async def test_a_host_without_the_image_sends_the_create_on_and_is_503_where_no_other_host_has_it(api: Api) -> None:
    await added(api)
    api.sandboxes.roots.lacking.add(ADDED)
    api.owners.best = (None, PEER, PEER)
    there = await api.call("POST", "/sessions/create", {"image": "python"})
    assert (there.status, there.headers.get("X-Accel-Redirect")) == (204, "@peer")
    api.owners.best = (None,)
    assert (await api.call("POST", "/sessions/create", {"image": "python"})).refusal == (503, "unavailable")
    assert not api.store.sessions


@pytest.mark.parametrize("damage", [b"", b"x" * 100])
async def test_an_image_that_the_archive_does_not_have_whole_is_not_used(api: Api, damage: bytes) -> None:
    await added(api)
    await api.lifecycle.layers.shared.look()
    api.archive.objects[f"images/{ADDED}"] = damage
    api.sandboxes.roots.lacking.add(ADDED)
    assert (await api.call("POST", "/sessions/create", {"image": "python"})).refusal == (503, "unavailable")
    assert not api.sandboxes.roots.has(ADDED)


async def test_an_image_in_the_place_of_another_is_not_used(api: Api) -> None:
    """Whoever can write to the archive cannot exchange images."""
    other = "root-" + "1" * 32
    await added(api)
    await api.lifecycle.layers.shared.look()
    await api.store.add_image(NamedImage("other", other, 1, 0))
    api.archive.objects[f"images/{other}"] = api.archive.objects[f"images/{ADDED}"]
    api.sandboxes.roots.lacking.add(other)
    assert (await api.call("POST", "/sessions/create", {"image": "other"})).refusal == (503, "unavailable")


async def test_an_image_that_nothing_refers_to_leaves_the_archive_by_one_host(api: Api) -> None:
    await added(api)
    await api.lifecycle.layers.shared.look()
    await api.store.remove_image("", "python")
    api.owners.on_duty = False
    await api.lifecycle.layers.shared.look()
    assert api.archive.objects
    api.owners.on_duty = True
    await api.lifecycle.layers.shared.look()
    assert not api.archive.objects
