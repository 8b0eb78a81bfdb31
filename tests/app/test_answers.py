"""Headers of every answer, and internal errors."""

import asyncio
import gc
from collections.abc import AsyncIterator
from types import FrameType

import pytest

from buntime.ports import Run, RunResult
from buntime.testing.sandboxes import FakeSandbox
from tests.app.serving import Api, serving


async def test_every_answer_has_its_own_request_id(api: Api) -> None:
    ids = {(await api.call("GET", path)).headers["X-Request-Id"] for path in ("/sessions", "/nothing", "/healthz")}
    assert len(ids) == 3


async def test_a_clients_request_id_is_echoed(api: Api) -> None:
    for path, key in (("/sessions", None), ("/sessions", ""), ("/healthz", "")):
        assert (await api.call("GET", path, key=key, X_Request_Id="abc-1~")).headers["X-Request-Id"] == "abc-1~"


@pytest.mark.parametrize("asked", ["", "with space", "x" * 129, "\u00e9"])
async def test_an_invalid_request_id_is_replaced(api: Api, asked: str) -> None:
    answer = await api.call("GET", "/sessions", X_Request_Id=asked)
    assert answer.headers["X-Request-Id"].startswith("req_")


async def test_answers_of_the_api_are_not_stored(api: Api) -> None:
    assert (await api.call("GET", "/sessions")).headers["Cache-Control"] == "no-store"
    assert (await api.call("GET", "/nothing")).headers["Cache-Control"] == "no-store"


async def broken(run: Run, sandbox: FakeSandbox) -> RunResult:
    raise RuntimeError("secret detail")


@pytest.fixture
async def broken_api() -> AsyncIterator[Api]:
    async with serving(broken) as running:
        yield running


async def test_an_internal_error_shows_no_details(broken_api: Api) -> None:
    answer = await broken_api.call("POST", "/execute", {"sessionId": await broken_api.session(), "code": "1"})
    assert answer.refusal == (500, "internal_error")
    assert b"secret" not in answer.body
    assert answer.error["details"] == {}
    assert answer.headers["X-RateLimit-Limit"] == "1000"


async def test_health_and_readiness_need_no_key(api: Api) -> None:
    assert (await api.call("GET", "/healthz", key="")).json == {"status": "ok"}
    api.checks["store"] = True
    assert (await api.call("GET", "/readyz", key="")).json == {"ready": True, "checks": {"store": True}}
    api.checks["store"] = False
    assert (await api.call("GET", "/readyz", key="")).status == 503


async def test_metrics_count_by_route_and_never_name_a_session(api: Api) -> None:
    session = await api.session()
    await api.call("GET", f"/sessions/{session}")
    await api.call("PROPFIND", "/sessions")
    text = (await api.metrics()).body.decode()
    assert 'buntime_requests_total{method="GET",route="/sessions/{sessionId}",status="200"} 1.0' in text
    assert 'method="other",route="/sessions",status="405"' in text
    assert session not in text


async def test_only_the_operator_can_read_metrics(api: Api) -> None:
    assert (await api.call("GET", "/metrics", key="")).refusal == (401, "unauthorized")
    assert (await api.call("GET", "/metrics", key="btk_" + "0" * 40)).refusal == (401, "unauthorized")
    refused = await api.call("GET", "/metrics")
    assert refused.refusal == (403, "forbidden")
    assert refused.error["details"] == {"scope": "operator"}
    assert (await api.metrics("/sessions")).status == 404


async def test_a_refused_request_frees_its_body(api: Api) -> None:
    gc.collect()
    gc.disable()
    try:
        body = {"sessionId": "ses_" + "a" * 18, "path": "x", "content": "x" * 2_000_000}
        for headers in ({}, {"Idempotency_Key": "k"}):
            assert (await api.call("POST", "/files/write", body, **headers)).status in (400, 404)
        await asyncio.sleep(0)
        alive = [o for o in gc.get_objects() if isinstance(o, FrameType) and o.f_code.co_name == "_perform"]
        assert not alive
    finally:
        gc.enable()
