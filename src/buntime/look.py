"""The look of the pages that buntime itself shows: one stylesheet and icon for all of them, light and dark.

A page carries both in itself, so it loads nothing else.
"""

import base64
import hashlib
import re
from html import escape
from string import Template
from urllib.parse import quote

STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1d1b24; --quiet: #5c5967; --paper: #fff; --soft: #f5f3f8; --line: #dcd8e4; --accent: #a02a5e;
}
@media (prefers-color-scheme: dark) {
  :root { --ink: #eceaf2; --quiet: #aeaaba; --paper: #16151b; --soft: #211f29; --line: #3b3846; --accent: #ff93bd }
}
* { box-sizing: border-box }
body { margin: 0; border-top: .25rem solid var(--accent); background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif }
main, .footer { width: 100%; max-width: 46rem; margin: 0 auto; padding: 0 1.25rem }
main { padding-block: clamp(1.5rem, 7vh, 5rem) 1.5rem }
.footer { padding-bottom: 2rem; color: var(--quiet); font-size: .9rem }
h1 { margin: 0 0 .75rem; font-size: clamp(1.6rem, 1.2rem + 2vw, 2.25rem); line-height: 1.2; letter-spacing: -.01em }
h2 { margin: 2.25rem 0 .75rem; font-size: 1.2rem }
h1, h2, p { overflow-wrap: break-word }
h1, h2 { text-wrap: balance }
p, .cards a { text-wrap: pretty }
p { margin: 0 0 1rem }
a { color: var(--accent) }
a:focus-visible, button:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px }
code { padding: .1em .3em; border-radius: .25rem; background: var(--soft); overflow-wrap: anywhere;
  font: .9em ui-monospace, monospace; -webkit-box-decoration-break: clone; box-decoration-break: clone }
pre { margin: 0 0 1rem; padding: 1rem; border: 1px solid var(--line); border-radius: .6rem; background: var(--soft);
  white-space: pre-wrap }
pre code { padding: 0; background: none }
button { min-width: 5.5rem; padding: .25rem .75rem; border: 1px solid var(--line); border-radius: .6rem;
  background: none; color: var(--accent); font: inherit; font-size: .9rem; cursor: pointer }
button:hover { border-color: var(--accent); background: var(--soft) }
.lead { color: var(--quiet); font-size: 1.15rem }
.cards { display: grid; gap: .75rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr));
  margin: 1.5rem 0; padding: 0; list-style: none }
.cards a { display: block; height: 100%; padding: .9rem 1rem; border: 1px solid var(--line); border-radius: .6rem;
  color: inherit; text-decoration: none }
.cards a:hover { border-color: var(--accent); background: var(--soft) }
.cards strong { display: block; color: var(--accent) }
.operations { padding: 0; list-style: none }
.operations li { padding: .5rem 0; border-top: 1px solid var(--line) }
.command { display: grid; grid-template-columns: 1fr auto; column-gap: 1rem; align-items: baseline;
  margin-top: 2.25rem }
.command h2 { margin-top: 0 }
.command p { grid-column: 1 / -1 }
.command pre { grid-column: 1 / -1; margin: 0 }
.unseen { position: absolute; width: 1px; height: 1px; margin: 0; overflow: hidden; clip-path: inset(50%) }
"""
STYLE_SOURCE = "'sha256-" + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode() + "'"
CONTENT_POLICY = f"default-src 'none'; style-src {STYLE_SOURCE}; img-src data:; base-uri 'none'; form-action 'none'"
OWN_POLICY = f"{CONTENT_POLICY}; frame-ancestors 'none'"  # of pages at the server's own address
SCRIPT_POLICY = f"{OWN_POLICY}; script-src 'self'"  # of those with a script of the server

_DRAWING = (  # a b
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'><rect width='32' height='32' rx='8' fill='#a02a5e'/>"
    "<path d='M11 6v20' stroke='#fff' stroke-width='4' stroke-linecap='round'/>"
    "<circle cx='17' cy='20' r='6' fill='none' stroke='#fff' stroke-width='4'/></svg>"
)
ICON = "data:image/svg+xml," + quote(_DRAWING, safe=" ='/")

_PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="$icon">
$head<title>$title</title>
<style id="look">$style</style>
</head>
<body>
<main>
$content</main>
$footer</body>
</html>
""")


def page(title: str, content: str, *, head: str = "", footer: str = "") -> str:
    """A complete HTML page. `title` is text; the rest is HTML. `footer` is what stands below the content."""
    footer = f'<footer class="footer">{footer}</footer>\n' if footer else ""
    return _PAGE.substitute(title=escape(title), content=content, head=head, footer=footer, style=STYLE, icon=ICON)


def visitor_page(title: str, content: str, status: int, again: int | None) -> str:
    """A page in place of a preview. `again`: seconds until it reloads itself; such a wait is not shown as an error."""
    head = f'<meta http-equiv="refresh" content="{again}">\n' if again else ""
    return page(title, content, head=head, footer="buntime" if again else f"Error {status} · buntime")


def marked(text: str) -> str:
    """HTML of a text that marks `code` with backticks and has links of the form `[text](/path)`."""
    linked = re.sub(r"\[([^]]+)\]\((/[^)]*)\)", r'<a href="\2">\1</a>', escape(text))
    return re.sub("`(.+?)`", r"<code>\1</code>", linked)


def listing(text: str) -> str:
    """HTML of a program or command. Its lines wrap: cut at the edge of the box, nothing shows that they go on."""
    return f"<pre><code>{escape(text)}</code></pre>\n"
