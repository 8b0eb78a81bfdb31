"""The pages that buntime itself shows to visitors of previews. They have no scripts and load nothing."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from string import Template

from buntime.operations.previews import Reason
from buntime.paths import ON_WAKE_LOG

# Only the style below may load. The owner decides who may embed a preview, so frames are allowed.
CONTENT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


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

_PAGE = Template("""\
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
$again<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1c1e21; --paper: #fff; --soft: #f0f2f5; --quiet: #5a6068 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --paper: #16181b; --soft: #24272c; --quiet: #a4abb4 }
}
* { box-sizing: border-box }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; grid-template-columns: minmax(0, 1fr);
  background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif }
main { width: 100%; max-width: 38rem; padding: 1.5rem }
h1 { margin: 0 0 1rem; font-size: 1.5rem; line-height: 1.25 }
p { margin: 0 0 1rem }
code { padding: .1em .3em; border-radius: .25rem; background: var(--soft); overflow-wrap: anywhere;
  font: .9em ui-monospace, monospace }
pre { margin: 0 0 1rem; padding: 1rem; border-radius: .5rem; background: var(--soft); overflow-x: auto }
pre code { padding: 0; background: none; overflow-wrap: normal }
small { color: var(--quiet) }
</style></head>
<body><main><h1>$title</h1>
$content<small>Error $status</small></main></body></html>
""")


def render(page: Page, port: int) -> bytes:
    """The page as HTML."""
    again = f'<meta http-equiv="refresh" content="{page.again}">\n' if page.again else ""
    first, *others = [f"<p>{_marked(text, port)}</p>\n" for text in page.paragraphs]
    example = f'<pre tabindex="0"><code>{_filled(page.example, port)}</code></pre>\n' if page.example else ""
    title, content = _filled(page.title, port), first + example + "".join(others)
    return _PAGE.substitute(again=again, title=title, content=content, status=page.status).encode()


def _filled(text: str, port: int) -> str:
    return escape(text.replace("$port", str(port)))


def _marked(text: str, port: int) -> str:
    return re.sub("`(.+?)`", r"<code>\1</code>", _filled(text, port))
