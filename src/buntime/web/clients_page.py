"""`/clients/` as HTML: how to install this server's clients, by direct address."""

from collections.abc import Sequence
from html import escape

from buntime.web.built_clients import NPM_PACKAGE, WHEEL, ClientFile
from buntime.web.docs_page import STYLE


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
    """A complete page: works without scripts."""
    lines = "".join(f"<h2>{name}</h2><pre tabindex=0>{escape(line)}</pre>" for name, line in install_lines(url))
    rows = "".join(
        f'<tr><th scope="row"><a href="{one.path}">{one.name}</a></th><td>{len(one.content):,} bytes</td>'
        f"<td><code>{one.sha256}</code></td></tr>"
        for one in files
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Clients of this buntime server</title><style>{STYLE}</style></head><body>"
        "<header><h1>Clients of this server</h1><p>Install them from here. They are in no package index: a package of "
        "the same name there is not ours. Python needs version 3.11 or later, Node 20.16 or later. They run on Linux. "
        "macOS is untried.</p></header>"
        f'<main>{lines}<h2>Files</h2><div class="wide"><table><thead><tr><th scope="col">File</th>'
        f'<th scope="col">Size</th><th scope="col">SHA-256</th></tr></thead><tbody>{rows}</tbody></table></div>'
        f'<p class="soft"><a href="/docs">API reference</a></p></main></body></html>'
    )
