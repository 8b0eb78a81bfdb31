"""The pages that buntime itself shows to visitors of previews. The owner decides who may embed them."""

from collections.abc import Mapping
from dataclasses import dataclass

from buntime import look
from buntime.operations.previews import Reason
from buntime.paths import ON_WAKE_LOG


@dataclass(frozen=True, slots=True)
class Page:
    """Texts may contain `$port` and mark `code` with backticks. `again`: seconds until the page reloads itself."""

    status: int
    title: str
    paragraphs: tuple[str, ...]
    example: str = ""
    again: int | None = None


_EXAMPLE = """Bun.serve({
  port: $port,
  fetch: () => new Response("Hello"),
});"""
_BOTH = "It can listen on `0.0.0.0` or only on `localhost`. Then reload this page."

PAGES: Mapping[Reason, Page] = {
    Reason.UNKNOWN: Page(
        404,
        "No session here",
        (
            "There is no session at this address. It may have expired or been deleted.",
            "An address is `ses-` followed by 18 letters and digits. For a port other than 8080, add the port, at "
            "least 1024: `ses-abc123def456ghi789-3000`.",
        ),
    ),
    Reason.PRIVATE: Page(
        401,
        "This preview is private",
        (
            "You need a link with a token to open it. Ask the owner for a link: links expire and can be revoked.",
            "Owners create a link with `POST /sessions/{id}/preview-token`.",
        ),
    ),
    Reason.SUSPENDED: Page(403, "This account is suspended", ("The account that owns this session is suspended.",)),
    Reason.WAKING: Page(
        503,
        "The session is waking",
        ("This takes a few seconds. The page reloads itself.",),
        again=1,
    ),
    Reason.NO_ROOM: Page(
        503,
        "The session cannot start right now",
        ("The server has no capacity for it right now. The page retries by itself. The session's files are safe.",),
        again=10,
    ),
    Reason.STARTING: Page(
        503,
        "The server is starting",
        (
            "The session woke from deep sleep. Its `onWake` command is running. Nothing listens on port $port yet. The "
            "page reloads itself.",
            f"The command's output is in `{ON_WAKE_LOG}` in the session.",
        ),
        again=1,
    ),
    Reason.RESTARTED: Page(
        503,
        "One moment",
        ("The session, or the server in it, has just started. The page reloads itself.",),
        again=1,
    ),
    Reason.NOTHING: Page(
        502,
        "Nothing listens on port $port",
        (
            "The session runs, but no program in it accepts connections on port $port. Start a server, for example:",
            _BOTH,
        ),
        _EXAMPLE,
    ),
    Reason.ENDED: Page(
        502,
        "Nothing listens on port $port",
        (
            "Deep sleep ended this session's processes. Start the server again, or set `onWake` to a command that "
            "starts it after each deep sleep. For example:",
            _BOTH,
        ),
        _EXAMPLE,
    ),
    Reason.NOT_STARTED: Page(
        502,
        "Nothing listens on port $port",
        (
            "The session woke from deep sleep and ran its `onWake` command, but no program accepts connections on port "
            "$port.",
            f"The command's output is in `{ON_WAKE_LOG}` in the session.",
        ),
    ),
    Reason.DAMAGED: Page(
        409,
        "The session cannot be restored",
        ("Its stored files are damaged or missing. The API tells the owner why.",),
    ),
    Reason.TOO_MANY: Page(
        429,
        "Too many requests",
        ("Too many requests are waiting for this session. Try again in a moment.",),
    ),
    Reason.FAILED: Page(
        500,
        "Something went wrong on our side",
        ("The server's log has the details under the `X-Request-Id` of this response.",),
    ),
}


def render(page: Page, port: int) -> bytes:
    """The page as HTML."""
    again = f'<meta http-equiv="refresh" content="{page.again}">\n' if page.again else ""
    title = _filled(page.title, port)
    first, *others = [f"<p>{look.marked(_filled(text, port))}</p>\n" for text in page.paragraphs]
    example = look.listing(_filled(page.example, port)) if page.example else ""
    content = f"<h1>{look.marked(title)}</h1>\n{first}{example}{''.join(others)}"
    return look.page(title, content, head=again, footer=f"Error {page.status} · buntime").encode()


def _filled(text: str, port: int) -> str:
    return text.replace("$port", str(port))
