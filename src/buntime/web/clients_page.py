"""`/clients/` as HTML: how to install this server's clients, by direct address."""

from collections.abc import Sequence
from html import escape

from buntime import look
from buntime.web.assets import copy_script
from buntime.web.built_clients import NPM_PACKAGE, WHEEL, ClientFile


def install_lines(url: str) -> Sequence[tuple[str, str]]:
    """What each line installs, and the line. `url`: of the server.

    A line gives the address of the file. By its name alone a package index could answer with another package.
    """
    wheel, npm = f"{url}/clients/{WHEEL}", f"{url}/clients/{NPM_PACKAGE}"
    return (
        ("Command line, with Python SDK", f'pip install "buntime-sdk[cli] @ {wheel}"'),
        ("MCP server, with command line and Python SDK", f'pip install "buntime-sdk[mcp] @ {wheel}"'),
        ("Python SDK alone", f'pip install "buntime-sdk @ {wheel}"'),
        ("TypeScript SDK, with npm", f"npm install {npm}"),
        ("TypeScript SDK, with Bun", f"bun add {npm}"),
    )


def short_lines(url: str) -> Sequence[str]:
    """The lines for the command line and for the TypeScript SDK."""
    lines = [line for _, line in install_lines(url)]
    return lines[0], lines[3]


def render_clients(url: str, files: Sequence[ClientFile]) -> str:
    """The page as HTML. `url`: of the server."""
    lines = "".join(
        f'<section class="command">\n<h2>{escape(name)}</h2>\n{look.listing(line)}</section>\n'
        for name, line in install_lines(url)
    )
    rows = "".join(
        f'<li><a href="{file.path}">{file.name}</a>, {len(file.content):,} bytes, SHA-256 '
        f"<code>{file.sha256}</code></li>\n"
        for file in files
    )
    content = (
        "<h1>Clients of this server</h1>\n"
        '<p class="lead">Install them from here. They are in no package index: a package of the same name there is not '
        "ours.</p>\n<p>You need Python 3.11 or later, or Node.js 20.16 or later, or Bun. They run on Linux. macOS is "
        f"untried.</p>\n{lines}<h2>Files</h2>\n<ul>\n{rows}</ul>\n"
        '<p><a href="/docs">API reference</a></p>\n'
    )
    head = f'<script src="{copy_script().path}" defer></script>\n'
    return look.page("Clients of this buntime server", content, head=head)
