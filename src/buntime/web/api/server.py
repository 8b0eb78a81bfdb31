"""The server itself: its front page, health, readiness and the API's description, which need no key, and metrics.

Metrics are for the operator. A key of the operator reads them, and root without one from a socket: see `metrics_app`.
"""

import secrets
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib.metadata import version
from typing import Any

import msgspec
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from buntime import look
from buntime.config import Config
from buntime.errors import BuntimeError, NotFound
from buntime.scope import Scope
from buntime.web import failures
from buntime.web.address import url_of
from buntime.web.docs_page import docs_policy, render_docs
from buntime.web.exchange import Exchange, Headers, Reply, open_exchange
from buntime.web.landing_page import render_landing
from buntime.web.metrics import MEDIA, Metrics
from buntime.web.operation import Call, Operation, Page, Streamed, operation
from buntime.web.streaming import Out
from buntime.web.viewer import viewer
from buntime.web.wire import server as wire
from buntime.web.wire.shapes import encode

VERSION = version("buntime")
HTML = b"text/html; charset=utf-8"
HTML_HEADERS: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
]

type Describe = Callable[[tuple[Page, ...]], dict[str, Any]]


def pages(
    ready: Callable[[], Mapping[str, bool]], describe: Describe, config: Config, others: tuple[Page, ...] = ()
) -> tuple[Page, ...]:
    """`ready`: name of a part → whether it works. `describe`: the pages → the OpenAPI document; called once. `others`:
    more pages to describe."""

    def front(_: Exchange) -> Reply:
        links = {"docs": "/docs", "openapi": "/openapi.json", "health": "/healthz", "clients": "/clients/"}
        return Reply(200, encode(wire.Front(name="buntime", version=VERSION, **links)))

    def landing(exchange: Exchange) -> Reply:
        return page_reply(render_landing(url_of(exchange, config), VERSION), look.SCRIPT_POLICY)

    def health(_: Exchange) -> Reply:
        return Reply(200, encode(wire.Health(status="ok")))

    def readiness(_: Exchange) -> Reply:
        checks = dict(ready())
        whole = all(checks.values())
        return Reply(200 if whole else 503, encode(wire.Readiness(ready=whole, checks=checks)))

    description = _Description(describe)
    json = "application/json"
    description.pages = (
        Page("/", front, "List what this server offers.", json, wire.Front, html=landing),
        Page("/healthz", health, "Check that the server is up.", json, wire.Health),
        Page("/readyz", readiness, "Check that the server can take work.", json, wire.Readiness, also=(503,)),
        Page("/openapi.json", description.openapi, "Get this OpenAPI description.", json),
        Page("/docs", description.docs, "Get the API reference as a page.", HTML.decode()),
        *others,
    )
    return description.pages


def page_reply(html: str, policy: str, failure: BuntimeError | None = None) -> Reply:
    """The answer of a page for people. `policy`: its Content-Security-Policy. `failure`: what the page stands for."""
    headers = [*HTML_HEADERS, (b"content-security-policy", policy.encode()), (b"cache-control", b"no-cache")]
    status, code = (failures.BY_CODE[failure.code], failure.code) if failure else (200, None)
    return Reply(status, html.encode(), media=HTML, headers=headers, code=code)


class _Description:
    """The OpenAPI document as JSON and as HTML, made at the first request for either."""

    def __init__(self, describe: Describe) -> None:
        self._describe = describe
        self.pages: tuple[Page, ...] = ()

    def openapi(self, _: Exchange) -> Reply:
        return Reply(200, self._json)

    def docs(self, _: Exchange) -> Reply:
        shown, nonce = viewer(), secrets.token_urlsafe(16)
        return page_reply(render_docs(self._document, shown, nonce), docs_policy(shown, nonce))

    @cached_property
    def _document(self) -> dict[str, Any]:
        return self._describe(self.pages)

    @cached_property
    def _json(self) -> bytes:
        return msgspec.json.encode(self._document)


async def _send_metrics(call: Call[Any, Any], out: Out) -> None:
    shown = await call.metrics.render()
    await out.begin(MEDIA.encode(), [(b"content-length", b"%d" % len(shown))])
    await out.content(shown)


@operation(
    "GET",
    "/metrics",
    Scope.OPERATOR,
    tag="Server",
    streamed=Streamed(_send_metrics, media=MEDIA),
    done="The metrics, as text.",
)
async def get_metrics(call: Call[Any, Any]) -> None:
    """Get metrics for Prometheus.

    They are about all accounts, so only the operator can read them. On the server's host, root also reads them from a
    Unix socket, without a key.
    """


OPERATIONS: tuple[Operation, ...] = (get_metrics,)


def metrics_app(metrics: Metrics) -> ASGIApp:
    """An ASGI application that answers `GET /metrics` to anyone who can open its socket."""

    async def app(scope: AsgiScope, receive: Receive, send: Send) -> None:
        exchange = open_exchange(scope)
        found = scope["type"] == "http" and exchange.method in ("GET", "HEAD") and scope["path"] == "/metrics"
        if found:
            reply = Reply(200, await metrics.render(), media=MEDIA.encode())
        else:
            reply = failures.reply_to(NotFound("Metrics are at /metrics."))
        await exchange.send(reply, send)

    return app
