"""Web pages of other origins: allowed only if the operator lists them."""

from collections.abc import AsyncIterator

import pytest

from tests.app.serving import Api, serving

OURS, THEIRS = "https://app.example.com", "https://other.example.com"
ASKS = {"Access_Control_Request_Method": "POST", "Access_Control_Request_Headers": "authorization,content-type"}


@pytest.fixture
async def open_api() -> AsyncIterator[Api]:
    async with serving(cors_origins=f"{OURS},http://localhost:5173") as running:
        yield running


async def test_a_page_of_a_named_origin_reads_answers_and_failures(open_api: Api) -> None:
    for path, key, status in (("/sessions", None, 200), ("/sessions/none", None, 404), ("/sessions", "", 401)):
        answer = await open_api.call("GET", path, key=key, Origin=OURS)
        assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (status, OURS)
        assert "X-Request-Id" in answer.headers["Access-Control-Expose-Headers"]
        assert answer.headers["Vary"] == "Origin"


async def test_a_preflight_is_answered_without_a_key(open_api: Api) -> None:
    answer = await open_api.call("OPTIONS", "/execute", key="", Origin=OURS, **ASKS)
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (204, OURS)
    assert "PATCH" in answer.headers["Access-Control-Allow-Methods"]
    assert {"Authorization", "Idempotency-Key"} <= set(answer.headers["Access-Control-Allow-Headers"].split(", "))
    assert "X-Request-Id" in answer.headers


async def test_other_origins_get_no_cors_headers(open_api: Api) -> None:
    answer = await open_api.call("GET", "/sessions", Origin=THEIRS)
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert (await open_api.call("OPTIONS", "/execute", key="", Origin=THEIRS, **ASKS)).status == 401


async def test_streams_are_readable_too(open_api: Api) -> None:
    session = await open_api.session()
    body = {"sessionId": session, "command": "echo 1", "stream": True}
    answer = await open_api.call("POST", "/execute", body, Origin=OURS)
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (200, OURS)


async def test_without_the_setting_there_are_no_such_headers(api: Api) -> None:
    assert "Access-Control-Allow-Origin" not in (await api.call("GET", "/sessions", Origin=OURS)).headers
    assert (await api.call("OPTIONS", "/execute", key="", Origin=OURS, **ASKS)).status == 401


async def test_all_origins_can_be_allowed() -> None:
    async with serving(cors_origins="*") as running:
        answer = await running.call("GET", "/sessions", Origin=THEIRS)
        assert answer.headers["Access-Control-Allow-Origin"] == "*"
        assert "Vary" not in answer.headers
