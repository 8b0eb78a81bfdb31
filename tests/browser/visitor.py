"""A person with a browser."""

from typing import Self

from playwright.sync_api import Browser, ConsoleMessage, Response

WIDTH, HEIGHT = 1024, 768
PHONE = 320  # pixels, the narrowest that pages are made for
ABOUT_STATUS = "Failed to load resource: the server responded with a status of"
PATIENCE_MS = 60_000  # a guard against a hang, not a measure of speed


class Visitor:
    """One page with cookies of its own. Remembers what the browser loaded."""

    def __init__(self, browser: Browser) -> None:
        self.context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
        self.context.set_default_timeout(PATIENCE_MS)
        self.page = self.context.new_page()
        self._complaints: list[tuple[str, str]] = []  # and the address that each is about
        self.asked: list[str] = []  # addresses
        self.visits: list[tuple[int, str]] = []  # status and address of each page that was loaded
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda failed: self._complaints.append((str(failed), "")))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("response", self._answered)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def visit(self, url: str) -> int:
        """The status of the page where the browser ends up."""
        answer = self.page.goto(url)
        assert answer is not None
        return answer.status

    def sees(self, text: str) -> None:
        """Waits until the page's heading is this."""
        self.page.locator("h1", has_text=text).wait_for()

    @property
    def complaints(self) -> list[str]:
        """Without those about a page's own status: Chromium writes one for each page that is an error."""
        pages = {address for status, address in self.visits if status >= 400}
        return [text for text, about in self._complaints if not (about in pages and text.startswith(ABOUT_STATUS))]

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._complaints.append((message.text, str(message.location["url"])))

    def _answered(self, response: Response) -> None:
        if response.request.is_navigation_request():
            self.visits.append((response.status, response.url))
