"""Cross-origin calls of browsers, for origins of the operator's choice:
https://fetch.spec.whatwg.org/#http-cors-protocol

A call is let in by its key alone, which no browser sends by itself: so there are no credentials to allow.
"""

from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from buntime.web.exchange import Exchange, Headers, Reply

METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
REQUEST_HEADERS = (
    b"Authorization, Content-Type, Idempotency-Key, If-None-Match, If-Range, Last-Event-ID, Range, X-Request-Id"
)
ANSWER_HEADERS = (
    b"Content-Range, ETag, Idempotent-Replayed, Retry-After, Session-Existing, X-RateLimit-Limit, "
    b"X-RateLimit-Remaining, X-RateLimit-Reset, X-Request-Id"
)
KEPT_SECONDS = b"600"  # how long a browser may remember a preflight
ANY = b"*"


class CrossOrigin:
    """Runs inside `Front`. `origins`: for example `https://app.example.com`, or `*` for all."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        self._origins = frozenset(origin.encode() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["exchange"]
        origin = next(iter(exchange.header(b"origin")), b"")
        if origin and (origin in self._origins or ANY in self._origins):
            exchange.headers += _for(origin if ANY not in self._origins else ANY)
            if exchange.method == "OPTIONS" and exchange.header(b"access-control-request-method"):
                exchange.route = "preflight"
                await exchange.send(Reply(204, b"", headers=_preflight()), send)
                return
        await self._app(scope, receive, send)


def _for(origin: bytes) -> Headers:
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", ANSWER_HEADERS),
        *([] if origin == ANY else [(b"vary", b"Origin")]),
    ]


def _preflight() -> Headers:
    return [
        (b"access-control-allow-methods", METHODS),
        (b"access-control-allow-headers", REQUEST_HEADERS),
        (b"access-control-max-age", KEPT_SECONDS),
    ]
