"""What the server answers for a path without a route: a page for people in browsers, an error for programs."""

from collections.abc import Collection

from starlette.types import Receive, Scope, Send

from buntime import look
from buntime.errors import NotFound
from buntime.web.api.server import page_reply
from buntime.web.auth import Authenticator
from buntime.web.exchange import Exchange

CONTENT = (
    "<h1>This page does not exist</h1>\n"
    '<p class="lead">Check the address, or go on from here.</p>\n'
    '<ul class="cards">\n'
    '<li><a href="/"><strong>Start page</strong>What this server offers.</a></li>\n'
    '<li><a href="/docs"><strong>API reference</strong>Every call, with samples.</a></li>\n'
    "</ul>\n"
)
PAGE = look.page("This page does not exist", CONTENT, footer="Error 404 · buntime")


class Unknown:
    """Answers paths without a route. It checks and counts a key as every route does.

    `taken`: the first parts of the API's own paths, such as "sessions". Below them, every client gets the error.
    """

    def __init__(self, authenticator: Authenticator, taken: Collection[str]) -> None:
        self._authenticator = authenticator
        self._taken = taken

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope["exchange"]
        if exchange.header(b"authorization"):
            caller = await self._authenticator.caller_of(exchange)
            await self._authenticator.count_question(exchange, caller)
        else:
            self._authenticator.count_stranger(exchange)
        failure = NotFound("This path does not exist. See /docs.")
        if not self._is_for_a_person(exchange):
            raise failure
        exchange.headers.append((b"vary", b"Accept"))
        await exchange.send(page_reply(PAGE, look.OWN_POLICY, failure), send)

    def _is_for_a_person(self, exchange: Exchange) -> bool:
        if exchange.scope["type"] != "http" or exchange.method not in ("GET", "HEAD"):
            return False
        first = exchange.scope["path"].lstrip("/").partition("/")[0]
        return first not in self._taken and exchange.prefers_page
