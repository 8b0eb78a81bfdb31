"""What visitors see if a session has nothing to show."""

import pytest

from tests.acceptance.client import Client, Session
from tests.acceptance.sleeping import deep_sleep
from tests.browser.conftest import OpenSession
from tests.browser.showing import ask, preview_url, serve
from tests.browser.visitor import PHONE, Visitor
from tests.waiting import until

pytestmark = pytest.mark.sandbox

READABLE = 4.5  # contrast of text, by WCAG 2.2 (AA)
SERVER = """
const page = "<!doctype html><html lang=en><title>Real</title><link rel=icon href=data:,><h1>Here I am</h1></html>";
Bun.serve({ port: 8080, fetch: () => new Response(page, { headers: { "Content-Type": "text/html" } }) });
"""

# The least contrast of any text with what is behind it.
CONTRAST = """() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const linear = (part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  const light = (color) => {
    const [red, green, blue] = channels(color).map((channel) => linear(channel / 255));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const behind = (element) => {
    const color = getComputedStyle(element).backgroundColor;
    return channels(color)[3] === 0 ? behind(element.parentElement) : color;
  };
  const contrast = (element) => {
    const [low, high] = [light(getComputedStyle(element).color), light(behind(element))].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  return Math.min(...[...document.querySelectorAll("main, main *")].map(contrast));
}"""


def _is_ours(visitor: Visitor, title: str) -> None:
    """The page is one of ours, says this, and is a good one."""
    shown = visitor.page
    assert (shown.title(), shown.locator("h1").all_inner_texts()) == (title, [title])
    assert shown.locator("html").get_attribute("lang") == "en"
    assert shown.get_by_role("main").count() == 1
    papers = set()
    for scheme in ("light", "dark"):
        shown.emulate_media(color_scheme="light" if scheme == "light" else "dark")
        papers.add(shown.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert shown.evaluate(CONTRAST) >= READABLE, scheme
    assert len(papers) == 2, "light and dark"
    wide = shown.viewport_size
    assert wide
    shown.set_viewport_size({"width": PHONE, "height": wide["height"]})
    assert shown.evaluate("document.documentElement.scrollWidth") <= PHONE, "nothing is cut off on a phone"
    shown.set_viewport_size(wide)
    assert set(visitor.asked) <= {address for _, address in visitor.visits}, "nothing is loaded beside the page"
    assert visitor.complaints == []


def test_an_address_without_a_session_has_a_page(client: Client, visitor: Visitor) -> None:
    assert visitor.visit(f"http://ses-{'0' * 18}.localhost:{client.port}/some/path?a=b") == 404
    _is_ours(visitor, "No session here")


def test_a_deleted_session_looks_like_one_that_never_existed(session: Session, visitor: Visitor) -> None:
    serve(session, SERVER)
    address = preview_url(session)
    assert visitor.visit(address) == 200
    session.delete().done()
    assert visitor.visit(address) == 404
    _is_ours(visitor, "No session here")


def test_without_a_server_the_page_names_the_port_and_then_the_server_appears(
    session: Session, visitor: Visitor
) -> None:
    assert visitor.visit(preview_url(session)) == 502
    _is_ours(visitor, "Nothing listens on port 8080")
    serve(session, visitor.page.locator("pre").inner_text())
    visitor.page.reload()
    visitor.page.get_by_text("Hello", exact=True).wait_for()


def test_a_private_preview_opens_by_a_link_until_it_is_revoked(session: Session, visitor: Visitor) -> None:
    serve(session, SERVER)
    session.patch(preview={"visibility": "private"}).done()
    until(lambda: ask(session).status == 401, "who was let in just before is not any more")
    address = preview_url(session)
    assert visitor.visit(address) == 401
    _is_ours(visitor, "This preview is private")
    made = session.client.call("POST", f"/sessions/{session.id}/preview-token").done()
    assert visitor.visit(made["url"]) == 200
    visitor.sees("Here I am")
    assert visitor.page.url == f"{address}/", "no token stays in the address"
    assert visitor.visit(f"{address}/other") == 200, "the cookie opens it"
    session.client.call("DELETE", f"/sessions/{session.id}/preview-token").done()
    until(lambda: visitor.visit(address) == 401, "the cookie is worth nothing")
    _is_ours(visitor, "This preview is private")


def test_a_page_says_that_deep_sleep_ended_the_server(session: Session, visitor: Visitor) -> None:
    serve(session, SERVER)
    deep_sleep(session)
    assert visitor.visit(preview_url(session)) == 502
    _is_ours(visitor, "Nothing listens on port 8080")
    assert "deep sleep ended" in visitor.page.get_by_role("main").inner_text()


def test_a_server_started_by_onwake_runs_after_deep_sleep(open_session: OpenSession, visitor: Visitor) -> None:
    session = open_session(onWake="cd /workspace && exec bun server.ts")
    serve(session, SERVER)
    deep_sleep(session)
    assert visitor.visit(preview_url(session)) == 200
    visitor.sees("Here I am")


def test_while_a_server_starts_slowly_the_page_reloads_until_it_runs(
    open_session: OpenSession, visitor: Visitor
) -> None:
    """Longer than a request waits: that is told once, and nobody has to do anything."""
    session = open_session(onWake="cd /workspace && sleep 23 && exec bun server.ts")
    serve(session, SERVER)
    deep_sleep(session)
    assert visitor.visit(preview_url(session)) == 503
    _is_ours(visitor, "The program is starting")
    visitor.sees("Here I am")
    assert [status for status, _ in visitor.visits][-1] == 200
