"""`/docs`: the API reference. A viewer makes it out of the OpenAPI document, in the browser.

The page itself lists the operations. That is what you see without scripts, and if the viewer's files are missing.
"""

from collections.abc import Mapping
from html import escape
from typing import Any

from buntime import look
from buntime.web.viewer import Viewer

BOUNDS = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def docs_policy(viewer: Viewer | None, nonce: str) -> str:
    """What the page may load: files of this server alone. See decision 17 for the viewer's styles."""
    if viewer is None:
        return look.OWN_POLICY
    styles = f"style-src 'self' {look.STYLE_SOURCE} 'nonce-{nonce}'; style-src-attr 'unsafe-inline'"
    return f"default-src 'none'; script-src 'self'; {styles}; connect-src 'self'; img-src 'self' data:; {BOUNDS}"


def render_docs(document: Mapping[str, Any], viewer: Viewer | None, nonce: str) -> str:
    """A complete HTML page. `nonce` lets the viewer's own stylesheet in. Use each one once."""
    info = document["info"]
    listed = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    sections = "".join(
        f'<h2>{escape(tag["name"])}</h2>\n<p>{look.marked(tag["description"])}</p>\n<ul class="operations">\n'
        + "".join(_entry(*one) for one in listed if tag["name"] in one[2]["tags"])
        + "</ul>\n"
        for tag in document["tags"]
    )
    introduction = "".join(f"<p>{look.marked(text)}</p>\n" for text in info["description"].split("\n\n"))
    content = (
        f"<h1>{escape(info['title'])} API</h1>\n{introduction}"
        '<p>Parameters, responses and samples of code are in the <a href="/openapi.json">OpenAPI document</a>.</p>\n'
        f"{sections}"
    )
    head = _loading(viewer, nonce) if viewer else ""
    return look.page(f"{info['title']} API", content, head=head)


def _loading(viewer: Viewer, nonce: str) -> str:
    return (
        f'<meta property="csp-nonce" content="{nonce}">\n<link rel="stylesheet" href="{viewer.style.path}">\n'
        f'<script src="{viewer.start.path}" defer></script>\n<script src="{viewer.script.path}" defer></script>\n'
    )


def _entry(path: str, method: str, operation: Mapping[str, Any]) -> str:
    return f"<li><code>{method.upper()} {escape(path)}</code> {look.marked(operation['summary'])}</li>\n"
