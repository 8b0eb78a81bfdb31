"""What every tool uses: a client with the caller's key, and the session of the conversation."""

import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

from buntime_sdk import AsyncBuntime, BuntimeError, Unauthorized
from mcp.server.mcpserver import Context
from mcp.types import CallToolResult

from buntime_cli.mcp.answers import refusal
from buntime_cli.mcp.conversations import Conversation, Conversations, Opened

S = TypeVar("S")
P = ParamSpec("P")

BEARER = "bearer "


def bearer(headers: Mapping[str, str]) -> str | None:
    """The key in a request, None if it is missing or empty."""
    given = headers.get("authorization", "")
    return given[len(BEARER) :].strip() or None if given.lower().startswith(BEARER) else None


@dataclass(frozen=True, slots=True)
class Settings:
    """`key`: None if each caller must bring its own."""

    url: str | None
    key: str | None
    ttl: int


class ToolContext:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.conversations = Conversations(settings.ttl)

    @asynccontextmanager
    async def client(self, context: Context[Any, Any]) -> AsyncIterator[tuple[AsyncBuntime, Conversation]]:
        """Raises Unauthorized if the caller brings no key."""
        headers = context.headers
        key = (None if headers is None else bearer(headers)) or self._settings.key
        if not key:  # the SDK would use this process's key
            raise Unauthorized("This call has no `Authorization: Bearer btk_…` header.", code="unauthorized")
        conversation = Conversation.of_process() if headers is None else Conversation.of_request(key, headers)
        async with AsyncBuntime(key, self._settings.url) as client:
            yield client, conversation

    @asynccontextmanager
    async def session(self, context: Context[Any, Any], asked: str | None) -> AsyncIterator[Opened]:
        """`asked`: a session id, or None or "" for the conversation's own session."""
        async with self.client(context) as (client, conversation):
            yield await self.conversations.open(client, conversation, asked or None)


def telling_errors(
    tool: Callable[Concatenate[S, P], Awaitable[CallToolResult]],
) -> Callable[Concatenate[S, P], Awaitable[CallToolResult]]:
    """Turns the server's errors into results, so that the model reads them instead of the user's log."""

    @functools.wraps(tool)
    async def tool_telling_errors(self: S, /, *arguments: P.args, **named: P.kwargs) -> CallToolResult:
        try:
            return await tool(self, *arguments, **named)
        except BuntimeError as failure:
            return refusal(failure)

    return tool_telling_errors


def note(opened: Opened) -> dict[str, str]:
    """The values that name the session in every result."""
    return {"session": opened.session.id, **({"note": opened.note} if opened.note else {})}
