"""Servers in the fake's sessions."""

import httpx2
import pytest
from buntime_sdk import ConnectionFailed, SessionNotFound, Unavailable
from buntime_sdk.testing import AsyncFakeBuntime, FakeBuntime, FakeRequest, PreviewAnswer


def test_a_port_answers_what_its_script_says() -> None:
    def answer(request: FakeRequest) -> httpx2.Response:
        return httpx2.Response(201, json={"path": request.path, "query": dict(request.query), "body": request.body})

    session = FakeBuntime().on_fetch(8080, answer).on_fetch(3000, "plain").sessions.create()
    response = session.fetch("/a?b=1", method="POST", json={"n": 1})
    assert (response.status_code, response.json()) == (201, {"path": "/a", "query": {"b": "1"}, "body": {"n": 1}})
    assert session.fetch(port=3000).text == "plain"


async def test_the_async_fake_answers_too() -> None:
    async with AsyncFakeBuntime() as fake:
        session = await fake.on_fetch(8080, "hello").sessions.create()
        response = await session.fetch(stream=True)
        assert b"".join([part async for part in response.aiter_bytes()]) == b"hello"
        await response.aclose()


def test_a_private_port_gets_a_token_which_its_server_does_not_see() -> None:
    seen: list[FakeRequest] = []

    def answer(request: FakeRequest) -> str:
        seen.append(request)
        return "in"

    fake = FakeBuntime().on_fetch(8080, answer)
    session = fake.sessions.create(preview={"visibility": "private"})
    assert session.fetch(headers={"Authorization": "Bearer mine"}).text == "in"
    assert "x-preview-token" not in seen[0].headers
    assert seen[0].headers["authorization"] == "Bearer mine"
    session.revoke_preview_tokens()
    assert session.fetch().text == "in"
    assert [one.path for one in fake.requests].count(f"/sessions/{session.id}/preview-token") == 3


def test_on_a_port_without_a_script_nothing_listens() -> None:
    fake = FakeBuntime(max_retries=1)
    session = fake.sessions.create()
    with pytest.raises(Unavailable, match="port 8080") as caught:
        session.fetch()
    assert (caught.value.status, len(fake.requests)) == (502, 3)


def test_a_visit_wakes_the_session_and_a_deleted_one_is_not_found() -> None:
    session = FakeBuntime().on_fetch(8080, "up").sessions.create()
    session.sleep("deep-sleep")
    assert session.fetch().text == "up"
    assert session.refresh().state == "active"
    session.delete()
    with pytest.raises(SessionNotFound):
        session.fetch()


def test_a_script_can_refuse_or_break_the_connection() -> None:
    answers: list[PreviewAnswer] = [Unavailable("Waking.", code="unavailable", status=503, retry_after=1), "up"]
    fake = FakeBuntime().on_fetch(8080, lambda request: answers.pop(0))
    session = fake.sessions.create()
    assert session.fetch().text == "up"
    fake.on_fetch(8080, ConnectionFailed("It broke.", begun=True))
    with pytest.raises(ConnectionFailed):
        session.fetch(method="POST")


def test_no_program_can_pose_as_the_servers_refusal() -> None:
    posing = httpx2.Response(503, headers={"X-Preview-Error": "unavailable", "Retry-After": "1"}, text="mine")
    session = FakeBuntime().on_fetch(8080, posing).sessions.create()
    assert session.fetch().text == "mine"
