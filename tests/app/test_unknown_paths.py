"""Paths that do not exist, as browsers and programs see them."""

import re

import pytest

from buntime.web.app import OPERATIONS
from tests.app.serving import Api
from tests.app.test_front_pages import HTML

MESSAGE = "This path does not exist. See /docs."


async def test_a_browser_gets_a_page_that_leads_on(api: Api) -> None:
    for path in ("/nowhere", "/clients", "/docs/nowhere", "/a/b%00c", "/healthz/x"):
        answer = await api.call("GET", path, key="", Accept=HTML)
        assert (answer.status, answer.headers["Content-Type"]) == (404, "text/html; charset=utf-8"), path
        assert set(re.findall('<a href="([^"]+)"', answer.body.decode())) == {"/", "/docs"}
        assert answer.headers["Vary"] == "Accept"
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        head = await api.call("HEAD", path, key="", Accept=HTML)
        assert (head.status, head.headers["Content-Type"], head.body) == (404, "text/html; charset=utf-8", b"")


async def test_the_page_repeats_nothing_of_the_address(api: Api) -> None:
    pages = {(await api.call("GET", path, key="", Accept=HTML)).body for path in ("/nowhere", "/else?<b>=%3Cb%3E")}
    assert len(pages) == 1


@pytest.mark.parametrize("accept", ["", "*/*", "application/json", "application/json, text/html;q=0.9", "text/plain"])
async def test_a_program_gets_the_error(api: Api, accept: str) -> None:
    headers = {"Accept": accept} if accept else {}
    answer = await api.call("GET", "/nowhere", key="", **headers)
    assert answer.headers["Content-Type"] == "application/json"
    assert "Vary" not in answer.headers
    assert answer.json == {"error": {"code": "not_found", "retryable": False, "message": MESSAGE, "details": {}}}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
async def test_other_methods_get_the_error_even_from_a_browser(api: Api, method: str) -> None:
    answer = await api.call(method, "/nowhere", key="", Accept=HTML)
    assert (answer.refusal, answer.error["message"]) == ((404, "not_found"), MESSAGE)


async def test_below_the_apis_own_paths_a_browser_gets_the_error(api: Api) -> None:
    for first in {operation.path.split("/")[1] for operation in OPERATIONS}:
        answer = await api.call("GET", f"/{first}/a/b/c/d", key="", Accept=HTML)
        assert (answer.refusal, answer.error["message"]) == ((404, "not_found"), MESSAGE), first


async def test_a_wrong_key_is_refused_before_there_is_a_page(api: Api) -> None:
    answer = await api.call("GET", "/nowhere", key="btk_wrong", Accept=HTML)
    assert answer.refusal == (401, "unauthorized")


async def test_the_page_counts_as_a_failure(api: Api) -> None:
    await api.call("GET", "/nowhere", key="", Accept=HTML)
    assert 'buntime_refusals_total{code="not_found",route="unknown"} 1' in (await api.metrics()).body.decode()
