"""What tells of the server itself, without a key: health, readiness, metrics and the description of the API."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from buntime.web import wire
from buntime.web.docs_page import CONTENT_POLICY, render_docs
from buntime.web.exchange import Reply
from buntime.web.metrics import MEDIA, Metrics
from buntime.web.operation import Page

HTML_HEADERS = [
    (b"content-security-policy", CONTENT_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"public, max-age=300"),
]

type Describe = Callable[[tuple[Page, ...]], dict[str, Any]]


def pages(ready: Callable[[], Mapping[str, bool]], metrics: Metrics, describe: Describe) -> tuple[Page, ...]:
    """`ready`: name of a part → whether it works. `describe`: the pages → the OpenAPI document, made once."""
    made: list[tuple[bytes, bytes]] = []  # the document and its HTML, at the first look

    def documents() -> tuple[bytes, bytes]:
        if not made:
            document = describe(all_pages)
            made.append((msgspec.json.encode(document), render_docs(document).encode()))
        return made[0]

    def health() -> Reply:
        return Reply(200, wire.encode(wire.Health(status="ok")))

    def readiness() -> Reply:
        checks = dict(ready())
        whole = all(checks.values())
        return Reply(200 if whole else 503, wire.encode(wire.Readiness(ready=whole, checks=checks)))

    def numbers() -> Reply:
        return Reply(200, metrics.render(), media=MEDIA.encode())

    def openapi() -> Reply:
        return Reply(200, documents()[0])

    def docs() -> Reply:
        return Reply(200, documents()[1], media=b"text/html; charset=utf-8", headers=list(HTML_HEADERS))

    json = "application/json"
    all_pages = (
        Page("/healthz", health, "Whether the server answers.", json, wire.Health),
        Page("/readyz", readiness, "Whether it can take work.", json, wire.Readiness, also=(503,)),
        Page("/metrics", numbers, "Numbers for Prometheus.", MEDIA),
        Page("/openapi.json", openapi, "This description, OpenAPI 3.1.", json),
        Page("/docs", docs, "The API reference for people.", "text/html; charset=utf-8"),
    )
    return all_pages
