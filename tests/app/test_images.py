"""Images: which of them an account can use, and what a session says about its own."""

import asyncio

import pytest

from buntime.image import NamedImage
from tests.app.serving import START, Api
from tests.waiting import eventually

ALPINE = NamedImage("alpine", "root-1", 5 << 20, int(START))
DEBIAN = NamedImage("debian", "root-2", 90 << 20, int(START) + 1)


@pytest.fixture
async def api_with_images(api: Api) -> Api:
    for image in (DEBIAN, ALPINE):
        await api.store.add_image(image)
    return api


async def test_images_are_listed_by_name_in_pages(api_with_images: Api) -> None:
    answer = await api_with_images.call("GET", "/images")
    alpine = {"imageId": "root-1", "name": "alpine", "sizeBytes": 5242880, "createdAt": "2024-01-19T10:30:00Z"}
    assert [image["name"] for image in answer.json["images"]] == ["alpine", "debian"]
    assert (answer.json["images"][0], answer.json["total"]) == (alpine, 2)
    page = await api_with_images.call("GET", "/images?limit=1&offset=1")
    assert ([image["name"] for image in page.json["images"]], page.json["total"]) == (["debian"], 2)


async def test_a_session_stands_on_the_image_that_was_asked_for(api_with_images: Api) -> None:
    api = api_with_images
    asked = await api.session(image="alpine")
    usual = await api.session()
    named = await api.session(image="default")
    images = [(await api.call("GET", f"/sessions/{session}")).json["image"] for session in (asked, usual, named)]
    assert images == ["alpine", "default", "default"]
    stored = [api.store.sessions[session].image for session in (asked, usual, named)]
    assert stored == ["root-1", "fake", "fake"]


@pytest.mark.parametrize("name", ["none", "Alpine", "root-1", "../x", ""])
async def test_an_unknown_image_is_not_found_and_makes_no_session(api_with_images: Api, name: str) -> None:
    api = api_with_images
    refused = await api.call("POST", "/sessions/create", {"image": name})
    assert refused.refusal == (404, "image_not_found")
    assert refused.error["details"] == {"image": name}
    assert not api.sandboxes.running


@pytest.mark.parametrize("image", [None, 1, ["alpine"], "x" * 64])
async def test_an_image_is_a_short_text(api: Api, image: object) -> None:
    refused = await api.call("POST", "/sessions/create", {"image": image})
    assert (refused.refusal, refused.error["details"]["field"]) == ((400, "invalid_request"), "image")


async def test_a_session_keeps_its_image_when_the_name_is_removed_or_given_away(api_with_images: Api) -> None:
    api = api_with_images
    session = await api.session(image="alpine")
    await api.store.add_image(NamedImage("alpine", "root-3", 1, 1))
    second = await api.session(image="alpine")
    await api.store.remove_image("", "alpine")
    assert [api.store.sessions[each].image for each in (session, second)] == ["root-1", "root-3"]
    assert (await api.call("GET", f"/sessions/{session}")).json["image"] == "alpine"
    assert (await api.call("POST", "/execute", {"sessionId": session, "command": "echo a"})).json["stdout"] == "a\n"
    assert (await api.call("POST", "/sessions/create", {"image": "alpine"})).refusal == (404, "image_not_found")


async def test_an_image_that_is_removed_while_a_session_is_made_on_it_refuses_the_session(
    api_with_images: Api,
) -> None:
    api = api_with_images
    api.sandboxes.open_for_claims.clear()
    creating = asyncio.create_task(api.call("POST", "/sessions/create", {"image": "alpine"}))
    await eventually(lambda: api.sandboxes.claims_waiting == 1)
    await api.store.remove_image("", "alpine")
    api.sandboxes.open_for_claims.set()
    assert (await creating).refusal == (404, "image_not_found")
    assert not api.sandboxes.running


@pytest.mark.parametrize("name", ["alpine", "default"])
async def test_an_operators_image_cannot_be_deleted_by_an_account(api_with_images: Api, name: str) -> None:
    refused = await api_with_images.call("DELETE", f"/images/{name}")
    assert refused.refusal == (403, "forbidden")
    assert len((await api_with_images.call("GET", "/images")).json["images"]) == 2


async def test_an_accounts_own_image_hides_the_operators_and_can_be_deleted(api_with_images: Api) -> None:
    api = api_with_images
    (account,) = api.store.accounts
    await api.store.add_image(NamedImage("alpine", "root-9", 1, 1, account))
    assert api.store.sessions[await api.session(image="alpine")].image == "root-9"
    other = await api.account(name="two")
    theirs = (await api.call("POST", "/sessions/create", {"image": "alpine"}, key=other)).json["sessionId"]
    assert api.store.sessions[theirs].image == "root-1"
    assert (await api.call("DELETE", "/images/alpine", key=other)).refusal == (403, "forbidden")
    assert (await api.call("DELETE", "/images/alpine")).json == {"deleted": True, "name": "alpine"}
    assert (await api.call("DELETE", "/images/none")).refusal == (404, "image_not_found")
    assert api.store.sessions[await api.session(image="alpine")].image == "root-1"
