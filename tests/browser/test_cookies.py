"""Sessions are isolated from each other and from the API in a browser too."""

import json
from typing import Any

import pytest

from tests.acceptance.client import Client, Session
from tests.browser.conftest import OpenSession
from tests.browser.showing import preview_url, serve
from tests.browser.visitor import Visitor

pytestmark = pytest.mark.sandbox

COOKIE = "__buntime_preview"

PLANTING = """
const page = `<!doctype html><html lang=en><title>Planting</title><h1>Planting</h1><script>
  document.cookie = "by_script=1; path=/; domain=localhost";
  document.cookie = "own=1; path=/";
</script></html>`;
const headers = new Headers({ "Content-Type": "text/html" });
headers.append("Set-Cookie", "by_header=1; Path=/; Domain=localhost");
headers.append("Set-Cookie", "__buntime_preview=planted; Path=/");
Bun.serve({ port: 8080, fetch: () => new Response(page, { headers }) });
"""
SHOWING_HEADERS = """
Bun.serve({
  port: 8080,
  fetch: (request) => Response.json(Object.fromEntries(request.headers), { headers: { "Set-Cookie": "own=1" } }),
});
"""


def _received(visitor: Visitor) -> dict[str, Any]:
    """The headers that the session's program got with this page."""
    return dict(json.loads(visitor.page.locator("body").inner_text()))


def _cookies(visitor: Visitor) -> dict[str, tuple[str, bool]]:
    return {
        cookie["name"]: (cookie["domain"], cookie["httpOnly"]) for cookie in visitor.context.cookies()
    }  # a host's name without a dot before it: for this host alone


def test_a_sessions_cookie_never_reaches_another_session_or_the_api(
    client: Client, open_session: OpenSession, visitor: Visitor
) -> None:
    planting, other = open_session(), open_session()
    serve(planting, PLANTING)
    serve(other, SHOWING_HEADERS)
    assert visitor.visit(preview_url(planting)) == 200
    host = preview_url(planting).removeprefix("http://").partition(":")[0]
    assert _cookies(visitor) == {"by_header": (host, False), "own": (host, False)}
    assert visitor.visit(preview_url(other)) == 200
    assert "cookie" not in _received(visitor)
    assert visitor.context.cookies(f"http://localhost:{client.port}") == []


def test_the_token_of_a_private_preview_never_reaches_its_program(session: Session, visitor: Visitor) -> None:
    serve(session, SHOWING_HEADERS)
    session.patch(preview={"visibility": "private"}).done()
    made = session.client.call("POST", f"/sessions/{session.id}/preview-token").done()
    assert visitor.visit(made["url"]) == 200
    assert _cookies(visitor)[COOKIE][1], "no script reads it"
    visitor.visit(preview_url(session))
    assert _received(visitor)["cookie"] == "own=1"
    assert made["token"] not in json.dumps(_received(visitor))


def test_an_api_key_never_reaches_a_session_but_other_authorization_does(session: Session, visitor: Visitor) -> None:
    serve(session, SHOWING_HEADERS)
    visitor.visit(preview_url(session))
    fetch = """async (sent) => (await fetch("/", { headers: { Authorization: sent } })).json()"""
    assert "authorization" not in visitor.page.evaluate(fetch, f"Bearer {session.client.key}")
    assert visitor.page.evaluate(fetch, "Bearer its-own")["authorization"] == "Bearer its-own"
