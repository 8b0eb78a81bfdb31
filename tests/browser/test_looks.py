"""Every page that buntime shows fits every screen, is readable for everybody, and loads nothing from elsewhere."""

import os
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page

from buntime import look
from buntime.edge import refusals
from buntime.web import visitor_pages
from tests.browser.conftest import Served
from tests.browser.visitor import Visitor

HERE = Path(__file__).parent
FAULTS = (HERE / "page_faults.js").read_text()
AXE = HERE / "axe/node_modules/axe-core/axe.min.js"
SHOTS = os.environ.get("BUNTIME_SCREENSHOTS")  # a directory, for people who want to look
WIDTHS, HEIGHT = (320, 768, 1280, 1920), 900
WITH_LAPTOPS = (320, 768, 1200, 1280, 1400, 1920)
CUT = "[...document.querySelectorAll('pre')].filter((code) => code.scrollWidth > code.clientWidth).length"
REQUEST = "0123456789abcdef" * 8  # as long as a client's own id can be
SCREENS = 4  # of a long page that are looked at
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
SEVERE = ("serious", "critical")
DRAWN = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
STILL = """async () => {
  for (let same = 0, tall = 0; same < 3; ) {
    await new Promise((done) => setTimeout(done, 100));
    same = tall === document.scrollingElement.scrollHeight ? same + 1 : 0;
    tall = document.scrollingElement.scrollHeight;
  }
}"""
RUN_AXE = """async () => (await axe.run({ resultTypes: ["violations"] })).violations.map(
  ({ id, impact, nodes }) => ({ id, impact, where: nodes.slice(0, 5).map(({ html }) => html.slice(0, 200)) }))"""


KEY_FORM = ".scalar-reference-intro-auth"
OVERLAPS = """(form) => {
  const words = [];
  const walker = document.createTreeWalker(form, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const range = document.createRange();
    range.selectNodeContents(walker.currentNode);
    for (const { left, right, top, bottom, width, height } of range.getClientRects())
      if (width > 1 && height > 1) words.push({ text: walker.currentNode.data, left, right, top, bottom });
  }
  const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  return words.flatMap((a, i) => words.slice(i + 1).filter((b) => meet(a, b)).map((b) => [a.text, b.text]));
}"""


def _previews() -> Mapping[str, str]:
    """Path → page, of all pages that visitors of previews can get."""
    pages = {f"/{reason.name.lower()}": page for reason, page in visitor_pages.PAGES.items()}
    own = {f"/edge-{status}": refusal for status, refusal in refusals.PREVIEW_REFUSALS.items()}
    return {path: visitor_pages.render(page, 65535, REQUEST).decode() for path, page in pages.items()} | {
        path: refusals.page(refusal) for path, refusal in own.items()
    }


PREVIEWS = _previews()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Security-Policy", look.CONTENT_POLICY)
        self.end_headers()
        # a page that reloads itself would do so while it is looked at
        self.wfile.write(PREVIEWS[self.path].replace('http-equiv="refresh"', "").encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def previews() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, name="previews").start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


OUTLINE = "getComputedStyle(found).outlineStyle"


def _settled(page: Page) -> None:
    """Waits until nothing moves any more: the API reference makes its parts when they come near."""
    page.evaluate(STILL if page.evaluate("document.scripts.length") else DRAWN)


def _check(visitor: Visitor, width: int, scheme: Literal["light", "dark"], name: str) -> None:
    """The page as it is now, screen by screen."""
    page = visitor.page
    page.set_viewport_size({"width": width, "height": HEIGHT})
    page.emulate_media(color_scheme=scheme)
    _settled(page)
    tall = int(page.evaluate("document.scrollingElement.scrollHeight"))
    screens = min(SCREENS, -(-tall // HEIGHT))
    for screen in range(screens):
        page.evaluate(f"scrollTo({{ top: {screen * (tall - HEIGHT) // max(screens - 1, 1)}, behavior: 'instant' }})")
        _settled(page)
        if SHOTS:
            page.screenshot(path=Path(SHOTS) / f"{name}-{width}-{scheme}-{screen}.png")
        assert page.evaluate(FAULTS) == [], f"{name} {width} {scheme}, screen {screen}"
    if not page.evaluate("typeof axe == 'object'"):
        page.evaluate(AXE.read_text())
    severe = [found for found in page.evaluate(RUN_AXE) if found["impact"] in SEVERE]
    assert severe == [], f"{name} {width} {scheme}"


def _stays_here(visitor: Visitor, url: str) -> None:
    assert [asked for asked in visitor.asked if not asked.startswith((url, "data:", "blob:"))] == []
    assert visitor.complaints == []


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_landing_page_fits_and_can_be_read(
    api: Served, visitor: Visitor, width: int, scheme: Literal["light", "dark"]
) -> None:
    assert visitor.visit(api.url) == 200
    _check(visitor, width, scheme, "landing")
    _stays_here(visitor, api.url)


@pytest.mark.parametrize("path", PREVIEWS)
def test_each_page_of_previews_fits_and_can_be_read(previews: str, visitor: Visitor, path: str) -> None:
    visitor.visit(previews + path)
    for width, scheme in product(WIDTHS, SCHEMES):
        _check(visitor, width, scheme, f"preview-{path[1:]}")
    _stays_here(visitor, previews)


@pytest.mark.parametrize("width", WITH_LAPTOPS)
def test_all_code_of_our_pages_is_seen_without_scrolling(
    api: Served, previews: str, visitor: Visitor, width: int
) -> None:
    visitor.page.set_viewport_size({"width": width, "height": HEIGHT})
    for address in (api.url, f"{api.url}/clients/", *(previews + path for path in PREVIEWS)):
        visitor.visit(address)
        assert visitor.page.evaluate(CUT) == 0, address


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WITH_LAPTOPS)
def test_the_page_of_clients_fits_and_can_be_read(
    api: Served, visitor: Visitor, width: int, scheme: Literal["light", "dark"]
) -> None:
    assert visitor.visit(f"{api.url}/clients/") == 200
    _check(visitor, width, scheme, "clients")
    _stays_here(visitor, api.url)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_of_an_unknown_path_fits_and_can_be_read(
    api: Served, visitor: Visitor, width: int, scheme: Literal["light", "dark"]
) -> None:
    assert visitor.visit(f"{api.url}/nowhere") == 404
    _check(visitor, width, scheme, "unknown")
    _stays_here(visitor, api.url)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WITH_LAPTOPS)
@pytest.mark.sampled(3)
def test_the_api_reference_fits_and_can_be_read(
    api: Served, chromium: Browser, width: int, scheme: Literal["light", "dark"]
) -> None:
    with Visitor(chromium) as visitor:
        visitor.page.set_viewport_size({"width": width, "height": HEIGHT})
        visitor.page.emulate_media(color_scheme=scheme)
        assert visitor.visit(f"{api.url}/docs") == 200
        # the page draws a section when it is about to be seen, and on a phone the introduction fills several screens
        visitor.page.get_by_role("heading", name="Sessions").scroll_into_view_if_needed()
        visitor.page.get_by_role("heading", name="Create a session").wait_for()
        _check(visitor, width, scheme, "docs")
        _stays_here(visitor, api.url)


@pytest.mark.parametrize("place", ["sessions/POST/sessions/create", "processes/GET/processes/logs"])
def test_on_a_phone_samples_and_the_name_of_a_call_fit_the_api_reference(
    api: Served, visitor: Visitor, place: str
) -> None:
    page = visitor.page
    page.set_viewport_size({"width": WIDTHS[0], "height": HEIGHT})
    assert visitor.visit(f"{api.url}/docs#tag/{place}") == 200
    page.get_by_role("button", name="Test Request").first.wait_for()
    _settled(page)
    assert page.evaluate(FAULTS) == []
    wider = "[...document.querySelectorAll('pre')].filter(({ parentElement: e }) => e.scrollWidth > e.clientWidth)"
    assert page.evaluate(f"{wider}.length") == 0


def test_on_laptops_no_word_in_the_form_for_the_key_covers_another(api: Served, visitor: Visitor) -> None:
    assert visitor.visit(f"{api.url}/docs") == 200
    visitor.page.get_by_role("heading", name="Create a session").wait_for()
    for width in range(1000, 1401, 50):
        visitor.page.set_viewport_size({"width": width, "height": HEIGHT})
        _settled(visitor.page)
        assert visitor.page.locator(KEY_FORM).evaluate(OVERLAPS) == [], width


def test_the_type_of_key_is_named_without_words_that_have_no_room(api: Served, visitor: Visitor) -> None:
    assert visitor.visit(f"{api.url}/docs") == 200
    visitor.page.get_by_role("heading", name="Create a session").wait_for()
    assert visitor.page.get_by_text("Selected Auth Type").count() == 0
    assert visitor.page.get_by_text("key", exact=True).count() > 0


def test_a_call_is_tried_with_a_key_on_the_page_and_goes_to_this_server_alone(api: Served, visitor: Visitor) -> None:
    assert visitor.visit(f"{api.url}/docs") == 200
    page = visitor.page
    page.get_by_placeholder("Token").first.fill(api.key)
    page.get_by_role("button", name="Test Request").first.click()
    with page.expect_response(f"{api.url}/sessions/create") as answered:
        page.get_by_role("button", name="Send").first.click()
    assert answered.value.request.headers["authorization"] == f"Bearer {api.key}"
    assert answered.value.status == 200
    _stays_here(visitor, api.url)
    page.reload()
    assert page.get_by_placeholder("Token").first.input_value() == "", "no key stays in the browser"
    assert api.key not in page.evaluate("JSON.stringify({ ...localStorage, ...sessionStorage })")


def test_the_search_finds_an_operation_by_its_path(api: Served, visitor: Visitor) -> None:
    visitor.page.set_viewport_size({"width": 1280, "height": HEIGHT})
    assert visitor.visit(f"{api.url}/docs") == 200
    visitor.page.get_by_role("button", name="Search").first.click()
    visitor.page.get_by_role("combobox").fill("files/watch")
    visitor.page.get_by_role("option", name="/files/watch").click()
    visitor.page.wait_for_function("location.hash.includes('watch')")
    visitor.page.get_by_role("heading", name="Watch a directory or a file").wait_for()
    _stays_here(visitor, api.url)


@pytest.mark.parametrize("language", ["curl", "Python", "TypeScript"])
def test_samples_can_be_chosen_in_each_language(api: Served, visitor: Visitor, language: str) -> None:
    visitor.page.set_viewport_size({"width": 1280, "height": HEIGHT})
    assert visitor.visit(f"{api.url}/docs") == 200
    page = visitor.page
    page.get_by_role("button", name="curl").first.click()
    page.get_by_role("option", name=language).first.click()
    wanted = {
        "curl": "--json '{",
        "Python": "client.sessions.create(",
        "TypeScript": "await client.sessions.create(",
    }
    page.get_by_text(wanted[language]).first.wait_for()


def test_a_link_to_a_call_of_the_reference_marks_its_heading_alone(api: Served, visitor: Visitor) -> None:
    assert visitor.visit(f"{api.url}/docs#api-1/tag/files/GET/files/watch") == 200
    visitor.page.locator("section:focus").wait_for()
    assert visitor.page.locator("section:focus").evaluate(f"(found) => {OUTLINE}") == "none"
    outlined = f"(all) => all.filter((found) => {OUTLINE} != 'none').map((found) => found.textContent)"
    assert visitor.page.locator("h1, h2, h3").evaluate_all(outlined) == ["Watch a directory or a file"]


def test_without_scripts_the_docs_list_every_operation(api: Served, chromium: Browser) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{api.url}/docs")
    assert page.get_by_text("POST /sessions/create").is_visible()
    context.close()
