"""The pages that buntime itself shows to visitors of previews. The owner decides who may embed them."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

from buntime import look
from buntime.operations.previews import Reason
from buntime.paths import ON_WAKE_LOG


@dataclass(frozen=True, slots=True)
class Page:
    """Texts may contain `$port` and `$request`, the request's id, and mark `code` with backticks.

    `below` stands below the example. `again`: seconds until the page reloads itself.
    """

    status: int
    title: str
    paragraphs: tuple[str, ...]
    example: str = ""
    below: str = ""
    again: int | None = None


_EXAMPLE = """Bun.serve({
  port: $port,
  fetch: () => new Response("Hello"),
});"""
_BOTH = "It can listen on `0.0.0.0` or only on `localhost`. Then reload this page."
_ASK = "This page is not available right now. Ask the person who sent you the link."
_LOG = f"The command's output is in `{ON_WAKE_LOG}` in the session."

PAGES: Mapping[Reason, Page] = {
    Reason.UNKNOWN: Page(
        404,
        "No session here",
        (
            "There is no session at this address. The session may have expired or been deleted. Ask the person who "
            "sent you the link.",
            "For the owner: an address is `ses-` followed by 18 lower-case letters and digits. For a port other than "
            "8080, add the port, at least 1024: `ses-abc123def456ghi789-3000`.",
        ),
    ),
    Reason.PRIVATE: Page(
        401,
        "This preview is private",
        (
            "You need a link with a token to open it. Links expire and can be revoked. Ask the person who sent you "
            "here for a new link.",
            "For the owner: create a link with `buntime open SESSION --port $port`, or with "
            "`POST /sessions/{id}/preview-token`.",
        ),
    ),
    Reason.SUSPENDED: Page(
        403,
        "This preview is not available",
        ("The account that owns it is suspended. Ask its owner.",),
    ),
    Reason.WAKING: Page(
        503,
        "The session is waking",
        ("This takes a few seconds. The page reloads itself.",),
        again=1,
    ),
    Reason.NO_ROOM: Page(
        503,
        "The session cannot start right now",
        ("The server is full. This page tries again by itself. The session's files are safe.",),
        again=10,
    ),
    Reason.STARTING: Page(
        503,
        "The program is starting",
        (
            "The session woke from deep sleep. The page reloads itself.",
            "For the owner: the session's `onWake` command is running. Nothing listens on port $port yet. " + _LOG,
        ),
        again=1,
    ),
    Reason.RESTARTED: Page(
        503,
        "One moment",
        ("The session, or the program in it, has just started. The page reloads itself.",),
        again=1,
    ),
    Reason.NOTHING: Page(
        502,
        "Nothing listens on port $port",
        (
            _ASK,
            "For the owner: the session runs, but no program in it accepts connections on port $port. Start a server, "
            "for example:",
        ),
        _EXAMPLE,
        _BOTH,
    ),
    Reason.ENDED: Page(
        502,
        "Nothing listens on port $port",
        (
            _ASK,
            "For the owner: deep sleep ended this session's processes. To start the server after each deep sleep, set "
            "`onWake` to a command that does. Start it again now, for example:",
        ),
        _EXAMPLE,
        _BOTH,
    ),
    Reason.NOT_STARTED: Page(
        502,
        "Nothing listens on port $port",
        (
            _ASK,
            "For the owner: the session woke from deep sleep and ran its `onWake` command, but no program accepts "
            "connections on port $port. " + _LOG,
        ),
    ),
    Reason.SERVICE_STARTING: Page(
        503,
        "The program is starting",
        (
            "The page reloads itself.",
            "For the owner: the service that declares port $port does not listen on it yet. "
            "`buntime services ls SESSION` shows how it is, and its output.",
        ),
        again=1,
    ),
    Reason.SERVICE_ENDED: Page(
        502,
        "Nothing listens on port $port",
        (
            _ASK,
            "For the owner: the service that declares port $port has ended, and is not started again. "
            "`buntime services ls SESSION` shows why. Start it with `buntime services start SESSION NAME`.",
        ),
    ),
    Reason.DAMAGED: Page(
        409,
        "The session cannot be restored",
        ("Its stored files are damaged or missing. Ask the owner; the API tells them why.",),
    ),
    Reason.TOO_MANY: Page(
        429,
        "Too many requests",
        ("They are waiting for this session. Try again in a moment.",),
    ),
    Reason.FAILED: Page(
        500,
        "Something went wrong on our side",
        ("Try again in a moment. If it happens again, tell the operator this id: `$request`",),
    ),
}


def render(page: Page, port: int, request_id: str) -> bytes:
    """The page as HTML. The client may have chosen `request_id`, so it is filled in last, as text."""
    title = page.title.replace("$port", str(port))
    parts = [f"<h1>{escape(title)}</h1>\n", *map(_paragraph, page.paragraphs)]
    if page.example:
        parts += [look.listing(page.example), _paragraph(page.below)]
    content = "".join(parts).replace("$port", str(port)).replace("$request", escape(request_id))
    return look.visitor_page(title, content, page.status, page.again).encode()


def _paragraph(text: str) -> str:
    return f"<p>{look.marked(text)}</p>\n"
