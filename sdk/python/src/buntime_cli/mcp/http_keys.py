"""Checks the API key of requests over HTTP."""

from buntime_sdk import BuntimeError, Forbidden, RateLimitExceeded, Unauthorized
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from buntime_cli.mcp.answers import told
from buntime_cli.mcp.conversations import hashed
from buntime_cli.mcp.keys import Keys
from buntime_cli.mcp.open_conversations import MOST_OPEN, Full, OpenConversations
from buntime_cli.mcp.tool_context import bearer

NO_KEY = "Send the header `Authorization: Bearer btk_…`."
STATUSES: dict[type[BuntimeError], int] = {Unauthorized: 401, Forbidden: 403, RateLimitExceeded: 429}
TRY_AGAIN_SECONDS = 5


class RequireKey:
    """Rejects requests without a key, and conversations that open with an unknown key, before anything is stored for
    them. Only the key that opened a conversation can use it."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app = app
        self._keys = keys
        self._conversations = OpenConversations()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        key = bearer(headers)
        if key is None:
            await _refusal(401, NO_KEY)(scope, receive, send)
            return
        owner = hashed(key)
        user = AuthenticatedUser(
            AccessToken(token=key, client_id=owner, scopes=[])
        )  # the library compares it with the conversation's owner
        scope = {**scope, "user": user}
        if (name := headers.get("mcp-session-id")) is not None:
            await self._continue(owner, name, scope, receive, send)
        elif _opens(headers):
            failure = await self._keys.refusal(key)
            if failure is None:
                await self._begin(owner, scope, receive, send)
                return
            status = STATUSES.get(type(failure), 503)
            await _refusal(status, told(failure), failure.retry_after or TRY_AGAIN_SECONDS)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _continue(self, owner: str, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        async def heard(message: Message) -> None:
            status = _status(message)
            if status == 404 or (scope["method"] == "DELETE" and 0 < status < 400):
                self._conversations.forget(owner, name)
            await send(message)

        with self._conversations.call(owner, name):
            await self._app(scope, receive, heard)

    async def _begin(self, owner: str, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            ends = self._conversations.reserve(owner)
        except Full:
            text = f"{MOST_OPEN} conversations of this key are in use. End one first."
            await _refusal(429, text, TRY_AGAIN_SECONDS)(scope, receive, send)
            return
        is_begun = False

        async def heard(message: Message) -> None:
            nonlocal is_begun
            is_done = 0 < _status(message) < 400
            name = Headers(raw=message["headers"]).get("mcp-session-id") if is_done else None
            if name is not None and not is_begun:
                is_begun = True
                self._conversations.settle(owner, name)
            await send(message)

        try:
            if ends is not None:
                await self._end(ends, scope)
            await self._app(scope, receive, heard)
        finally:
            if not is_begun:
                self._conversations.settle(owner, None)

    async def _end(self, name: str, scope: Scope) -> None:
        """Ends the conversation as its client would."""
        headers = [(b"mcp-session-id", name.encode("latin-1"))]
        headers += [one for one in scope["headers"] if one[0] in (b"host", b"authorization")]
        await self._app({**scope, "method": "DELETE", "headers": headers}, _nothing, _unheard)


def _opens(headers: Headers) -> bool:
    """Whether the library opens a conversation for a request that names none."""
    revision = headers.get("mcp-protocol-version")
    return revision is None or revision in HANDSHAKE_PROTOCOL_VERSIONS


def _status(message: Message) -> int:
    """The status, 0 if the message does not start an answer."""
    return int(message["status"]) if message["type"] == "http.response.start" else 0


def _refusal(status: int, text: str, retry_after: float = 0) -> Response:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if status in (429, 503):
        headers["Retry-After"] = f"{retry_after:.0f}"
    return PlainTextResponse(f"{text}\n", status, headers)


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _unheard(message: Message) -> None:
    pass
