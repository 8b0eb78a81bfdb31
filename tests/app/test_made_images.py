"""Images that accounts make, over HTTP."""

import asyncio

import pytest

from buntime.errors import Unavailable
from buntime.snapshot import MadeImage
from tests.app.serving import Answer, Api
from tests.app.sleeping import content_of, write
from tests.app.test_snapshots import awake, saved, take
from tests.waiting import eventually


async def make(api: Api, name: str = "mine", **fields: object) -> Answer:
    return await api.call("POST", "/images/create", {"name": name, **fields})


async def test_an_image_of_a_session_or_a_snapshot_has_its_files(api: Api) -> None:
    session = await awake(api)
    snapshot = await take(api, session)
    await write(api, session, "changed")
    assert (await make(api, "now", sessionId=session)).status == 200
    assert (await make(api, "then", snapshotId=snapshot)).status == 200
    found = [await content_of(api, await api.session(image=name)) for name in ("now", "then")]
    assert found == ["changed", "kept"]


async def test_it_says_what_it_is_and_is_listed(api: Api) -> None:
    made = (await make(api, sessionId=await awake(api))).json
    assert made["imageId"].startswith("img_")
    assert (made["name"], made["sizeBytes"], made["createdAt"]) == ("mine", 4, "2024-01-19T10:30:00Z")
    assert (await api.call("GET", "/images")).json == {"images": [made], "total": 1}


async def test_the_id_names_the_content(api: Api) -> None:
    one, two = await awake(api), await awake(api)
    ids = [(await make(api, name, sessionId=session)).json["imageId"] for name, session in (("a", one), ("b", two))]
    assert ids[0] == ids[1]
    other = (await make(api, "c", sessionId=one, env={"A": "1"})).json["imageId"]
    await write(api, two, "changed")
    changed = (await make(api, "d", sessionId=two)).json["imageId"]
    assert len({ids[0], other, changed}) == 3
    await api.lifecycle.layers.tidy()
    assert await content_of(api, await api.session(image="b")) == "kept"


async def test_an_image_can_stand_on_another(api: Api) -> None:
    await make(api, "base", sessionId=await awake(api))
    session = await api.session(image="base")
    await write(api, session, "on top")
    await make(api, "top", sessionId=session)
    await api.call("DELETE", "/images/base")
    await api.lifecycle.layers.tidy()
    assert await content_of(api, await api.session(image="top")) == "on top"
    assert len(await api.store.all_made_images()) == 2, "the top needs the base"


async def test_all_images_that_stand_on_one_another_go_at_once(api: Api) -> None:
    session = await awake(api)
    for _ in range(4):
        await make(api, "deep", sessionId=session)
        await api.call("DELETE", f"/sessions/{session}")
        session = await api.session(image="deep")
        await write(api, session, "on top")
    await api.call("DELETE", f"/sessions/{session}")
    await api.call("DELETE", "/images/deep")
    await eventually(lambda: not api.sandboxes.running)
    await api.lifecycle.layers.tidy()
    assert await api.store.all_made_images() == []
    assert await api.store.all_layers() == []


async def test_only_so_many_stand_on_one_another(api: Api) -> None:
    session = await awake(api)
    for number in range(16):
        assert (await make(api, "deep", sessionId=session)).status == 200, number
        session = await api.session(image="deep")
        await write(api, session, f"{number}")
    refused = await make(api, "deep", sessionId=session)
    assert refused.refusal == (400, "invalid_request")


async def test_sessions_live_on_when_it_is_deleted_and_then_it_goes(api: Api) -> None:
    await make(api, sessionId=await awake(api))
    session = await api.session(image="mine")
    assert (await api.call("DELETE", "/images/mine")).json == {"deleted": True, "name": "mine"}
    await api.lifecycle.layers.tidy()
    assert await content_of(api, session) == "kept"
    assert (await api.call("POST", "/sessions/create", {"image": "mine"})).refusal == (404, "image_not_found")
    forks = (await api.call("POST", f"/sessions/{session}/fork", {})).json["sessions"]
    assert await content_of(api, forks[0]["session"]["sessionId"]) == "kept", "a fork stands on it, too"
    for each in (session, forks[0]["session"]["sessionId"]):
        await api.call("DELETE", f"/sessions/{each}")
    await api.lifecycle.layers.tidy()


async def test_a_name_can_be_given_again(api: Api) -> None:
    first, second = await awake(api), await awake(api)
    await write(api, second, "second")
    await make(api, sessionId=first)
    on_first = await api.session(image="mine")
    await make(api, sessionId=second)
    assert await content_of(api, await api.session(image="mine")) == "second"
    assert await content_of(api, on_first) == "kept"


async def test_each_account_has_names_of_its_own(api: Api) -> None:
    await make(api, sessionId=await awake(api))
    other = await api.account(name="two")
    assert (await api.call("GET", "/images", key=other)).json["total"] == 0
    assert (await api.call("POST", "/sessions/create", {"image": "mine"}, key=other)).refusal[0] == 404
    assert (await api.call("DELETE", "/images/mine", key=other)).refusal[0] == 404


@pytest.mark.parametrize("name", ["default", "", "A", "../x", "x" * 64])
async def test_wrong_names_are_refused(api: Api, name: str) -> None:
    refused = await make(api, name, sessionId=await awake(api))
    assert (refused.refusal, refused.error["details"]["field"]) == ((400, "invalid_request"), "name")


async def test_it_is_made_of_one_thing(api: Api) -> None:
    session = await awake(api)
    snapshot = await take(api, session)
    for fields in ({}, {"sessionId": session, "snapshotId": snapshot}):
        assert (await make(api, **fields)).refusal == (400, "invalid_request")
    assert (await make(api, sessionId="ses_" + "x" * 18)).refusal == (404, "session_not_found")
    assert (await make(api, snapshotId="snp_" + "x" * 18)).refusal == (404, "snapshot_not_found")


async def test_a_plan_bounds_the_names(api: Api) -> None:
    key = await api.account(name="two", images=1)
    session = (await api.call("POST", "/sessions/create", {}, key=key)).json["sessionId"]
    body = {"name": "a", "sessionId": session}
    assert (await api.call("POST", "/images/create", body, key=key)).status == 200
    assert (await api.call("POST", "/images/create", body, key=key)).status == 200, "the same name again"
    refused = await api.call("POST", "/images/create", body | {"name": "b"}, key=key)
    assert refused.refusal == (429, "resource_limit_exceeded")
    assert refused.error["details"] == {"resource": "images", "limit": 1, "scope": "account", "plan": "paid"}
    assert refused.error["message"] == "The paid plan allows 1 images at a time in one account. Delete one first."


async def test_a_repeated_request_makes_one(api: Api) -> None:
    session = await awake(api)
    body = {"name": "mine", "sessionId": session}
    first = await api.call("POST", "/images/create", body, Idempotency_Key="once")
    await write(api, session, "changed")
    again = await api.call("POST", "/images/create", body, Idempotency_Key="once")
    assert again.json == first.json
    assert len(await api.store.all_made_images()) == 1


async def test_layers_of_images_stay_on_the_host(api: Api) -> None:
    await make(api, sessionId=await awake(api))
    await saved(api)
    assert not await api.lifecycle.layers.evict(1 << 40)


async def test_a_layer_stays_while_an_image_is_made_of_it(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, go_on = asyncio.Event(), asyncio.Event()
    digest = api.sandboxes.volumes.digest

    async def slow(layer: str) -> str:
        reading.set()
        await go_on.wait()
        return await digest(layer)

    snapshot = await take(api, await awake(api))
    await saved(api)
    monkeypatch.setattr(api.sandboxes.volumes, "digest", slow)
    making = asyncio.create_task(make(api, snapshotId=snapshot))
    await reading.wait()
    try:
        assert not await api.lifecycle.layers.evict(1)
        assert (await api.call("DELETE", f"/snapshots/{snapshot}")).status == 200
        await api.lifecycle.layers.tidy()
    finally:
        go_on.set()
        made = await making
    assert made.status in (200, 404)
    await api.lifecycle.layers.tidy()
    assert set(api.store.layers) == {made.layer for made in api.sandboxes.made.values()}


async def test_a_create_that_fails_leaves_no_image_on_the_host(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    know = api.sandboxes.know

    async def fail(image: MadeImage) -> None:
        await know(image)
        raise Unavailable("The host is short of something.")

    session = await awake(api)
    monkeypatch.setattr(api.sandboxes, "know", fail)
    assert (await make(api, sessionId=session)).status == 503
    assert not api.sandboxes.made
    monkeypatch.setattr(api.sandboxes, "know", know)
    assert (await make(api, sessionId=session)).status == 200
