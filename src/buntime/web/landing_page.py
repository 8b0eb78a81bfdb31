"""`/`: what a person sees who opens the server's address in a browser."""

from html import escape

from buntime import look
from buntime.web.assets import copy_script

LINKS = (
    (
        "/docs",
        "API reference",
        "Every call, with samples in curl, Python and TypeScript. Try them there with your key.",
    ),
    ("/clients/", "Clients", "The SDKs and command line for this server, ready to install."),
    ("/openapi.json", "OpenAPI", "The same description for programs and code generators."),
    ("/healthz", "Health", "Check that the server is up."),
)
START = """\
export BUNTIME_URL={url} BUNTIME_API_KEY=btk_…
session=$(curl -sS -X POST $BUNTIME_URL/sessions/create \\
  -H "Authorization: Bearer $BUNTIME_API_KEY" | grep -o 'ses_[a-z0-9]*')
curl -sS $BUNTIME_URL/execute -H "Authorization: Bearer $BUNTIME_API_KEY" \\
  --json '{{"sessionId": "'$session'", "code": "console.log(6 * 7)"}}'
"""


def render_landing(url: str, version: str) -> str:
    """The page as HTML. `url`: the server's own, as the browser sees it."""
    cards = "".join(
        f'<li><a href="{path}"><strong>{name}</strong>{escape(words)}</a></li>\n' for path, name, words in LINKS
    )
    content = (
        "<h1>buntime</h1>\n"
        '<p class="lead">Isolated sessions in which AI agents run code, on a machine of your own.</p>\n'
        f'<ul class="cards">\n{cards}</ul>\n'
        '<section class="command">\n<h2>Run something</h2>\n'
        f"<p>{look.marked('Each call needs an API key. On the server, `buntime keys create` makes one.')}</p>\n"
        f"{look.listing(START.format(url=url))}</section>\n"
    )
    head = f'<script src="{copy_script().path}" defer></script>\n'
    return look.page("buntime", content, head=head, footer=f"buntime {escape(version)}")
