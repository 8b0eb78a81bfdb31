"""`/docs`: the API reference as one HTML page, made from the OpenAPI document. It loads nothing else."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; --ink: #1c1b22; --soft: #5b5967; --line: #dcdae3; --card: #f7f6fa; --accent: #a83264 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #eceaf2; --soft: #a9a6b5; --line: #3a3844; --card: #211f28; --accent: #ff8fb8 }
  body { background: #17161c }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 2rem 1.25rem 6rem; max-width: 58rem; color: var(--ink);
  font: 1rem/1.6 system-ui, sans-serif }
a { color: var(--accent) }
a:focus-visible, summary:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px }
.skip { position: absolute; left: -99rem } .skip:focus { position: static }
h1 { font-size: 2.2rem; margin: 0 0 .5rem } h2 { margin: 3rem 0 1rem } h3 { margin: 0; font-size: 1.05rem }
h4 { margin: 1.25rem 0 .4rem; color: var(--soft); font-size: .85rem; letter-spacing: .04em; text-transform: uppercase }
nav ul { columns: 16rem; padding: 0; list-style: none }
section > article { border: 1px solid var(--line); border-radius: .6rem; padding: 1.1rem 1.25rem; margin: 1rem 0 }
code, pre { font: .9em ui-monospace, monospace } pre { background: var(--card); padding: .8rem 1rem;
  border-radius: .4rem; overflow-x: auto }
.method { color: var(--accent); font-weight: 700; margin-right: .5rem }
.wide { overflow-x: auto } table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .35rem .75rem .35rem 0; border-top: 1px solid var(--line) }
th { font-weight: 600; white-space: nowrap } .soft { color: var(--soft) }
"""
CONTENT_POLICY = (
    "default-src 'none'; style-src 'sha256-"
    + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def render_docs(document: Mapping[str, Any]) -> str:
    """A complete HTML page: works without scripts and by keyboard, in light and dark."""
    info = document["info"]
    tags = [tag["name"] for tag in document["tags"]]
    listed = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    links = "".join(
        f'<li><a href="#{operation["operationId"]}"><code><span class="method">{method.upper()}</span>'
        f"{escape(path)}</code></a></li>"
        for path, method, operation in listed
    )
    sections = "".join(
        f"<section><h2>{tag}</h2>"
        + "".join(_article(document, *one) for one in listed if tag in one[2]["tags"])
        + "</section>"
        for tag in tags
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(info['title'])} API</title><style>{STYLE}</style></head><body>"
        f'<a class="skip" href="#content">Skip to the operations</a><header><h1>{escape(info["title"])} API</h1>'
        f"<p>{_prose(info['description'])}</p>"
        f'<p class="soft">Version {escape(info["version"])} · <a href="/openapi.json">OpenAPI document</a></p></header>'
        f'<nav aria-label="Operations"><ul>{links}</ul></nav><main id="content">{sections}</main></body></html>'
    )


def _article(document: Mapping[str, Any], path: str, method: str, operation: Mapping[str, Any]) -> str:
    name = operation["operationId"]
    parts = [
        f'<article id="{name}" aria-labelledby="{name}-title"><h3 id="{name}-title">'
        f'<code><span class="method">{method.upper()}</span>{escape(path)}</code></h3>',
        f"<p>{_prose(operation['summary'])} {_prose(operation.get('description', ''))}</p>",
    ]
    if parameters := operation.get("parameters"):
        rows = [
            (f"{one['name']}", f"{one['in']}, {_kind(one['schema'])}", _notes(one, one.get("required", False)))
            for one in parameters
        ]
        parts.append(_table("Parameters", ("Name", "Type", "Meaning"), rows))
    if body := operation.get("requestBody"):
        media = body["content"].get("application/json")
        if media is None:
            parts.append("<h4>Body</h4><p>Raw bytes of any length.</p>")
        else:
            schema = _resolved(document, media["schema"])
            parts.append(_table("Body", ("Field", "Type", "Meaning"), _fields(document, schema)))
            parts.append(_example("Request", media))
    for status, answer in operation["responses"].items():
        for media in answer.get("content", {}).values():
            if status == "200":
                parts.append(_example("Response", media))
                parts.append(_events(document, media["schema"]))
    rows = [(status, "", _prose(answer["description"])) for status, answer in operation["responses"].items()]
    parts.append(_table("Statuses", ("Status", "", "Meaning"), rows))
    return "".join(parts) + "</article>"


def _fields(document: Mapping[str, Any], schema: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str, str]]:
    rows = []
    for name, shape in schema.get("properties", {}).items():
        rows.append((prefix + name, _kind(shape), _notes(shape, name in schema.get("required", ()))))
        inside = _resolved(document, shape.get("items") or shape)
        if inside is not shape and "properties" in inside:
            dotted = f"{prefix}{name}{'[]' if 'items' in shape else ''}."
            rows += _fields(document, inside, dotted)
    return rows


def _events(document: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """The events of a streamed response, with their fields."""
    rows: list[tuple[str, str, str]] = []
    for event, shape in schema.get("x-events", {}).items():
        fields = _fields(document, _resolved(document, shape))
        rows += [(f"{event}: {name}", kind, notes) for name, kind, notes in fields] or [(event, "", "")]
    return _table("Events of the stream", ("Event and field", "Type", "Meaning"), rows) if rows else ""


def _resolved(document: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    for one in (schema, *schema.get("anyOf", ()), *schema.get("allOf", ())):
        if "$ref" in one:
            found: Mapping[str, Any] = document["components"]["schemas"][one["$ref"].rpartition("/")[2]]
            return found
    return schema


def _kind(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return " | ".join(json.dumps(value) for value in schema["enum"])
    if "anyOf" in schema:
        return " | ".join(_kind(one) for one in schema["anyOf"])
    if "$ref" in schema or "allOf" in schema:
        return "object"
    kind = schema.get("type", "any")
    return f"array of {_kind(schema.get('items') or {})}" if kind == "array" else str(kind)


def _notes(described: Mapping[str, Any], required: bool) -> str:
    schema = described.get("schema", described)
    words = ["Required."] if required else []
    words += [described["description"]] if described.get("description") else []
    if "default" in schema:
        words.append(f"Default `{json.dumps(schema['default'])}`.")
    if "minimum" in schema and "maximum" in schema:
        words.append(f"{schema['minimum']} to {schema['maximum']}.")
    return _prose(" ".join(words))


def _table(title: str, heads: tuple[str, str, str], rows: list[tuple[str, str, str]]) -> str:
    """The third cell of each row is already HTML."""
    head = "".join(f'<th scope="col">{name}</th>' for name in heads if name)
    body = "".join(
        f'<tr><th scope="row"><code>{escape(name)}</code></th>'
        + (f'<td class="soft">{escape(kind)}</td>' if heads[1] else "")
        + f"<td>{text}</td></tr>"
        for name, kind, text in rows
    )
    return f'<h4>{title}</h4><div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _example(title: str, media: Mapping[str, Any]) -> str:
    if "example" not in media:
        return ""
    return f'<h4>{title}</h4><pre tabindex="0">{escape(json.dumps(media["example"], indent=2))}</pre>'


def _prose(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text, quote=False))
