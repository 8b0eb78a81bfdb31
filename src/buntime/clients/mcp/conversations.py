"""Which session a conversation uses.

A conversation is the process over stdio, and the `Mcp-Session-Id` of older clients over HTTP, each with the API key
that it brings. Newer clients over HTTP say nothing that lasts: there a result names its session, and the model gives it
back as `session`.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from weakref import WeakValueDictionary

from buntime_sdk import AsyncBuntime, AsyncSession, SessionNotFound

MOST = 10_000  # conversations that are remembered
MADE_BY = {"madeBy": "buntime mcp"}


@dataclass(frozen=True, slots=True)
class Conversation:
    """None where nothing tells it from others."""

    name: str | None

    @classmethod
    def of_process(cls) -> "Conversation":
        return cls("process")

    @classmethod
    def of_request(cls, key: str, headers: Mapping[str, str]) -> "Conversation":
        """Of one key alone: whoever guesses another's id learns nothing."""
        given = headers.get("mcp-session-id")
        return cls(None if given is None else f"{hashed(key)}:{given}")


@dataclass(frozen=True, slots=True)
class Opened:
    """`note`: what the model has to know of it."""

    session: AsyncSession
    note: str


def _now() -> datetime:
    return datetime.now(UTC)


class Conversations:
    def __init__(self, ttl: int, clock: Callable[[], datetime] = _now) -> None:
        """`ttl`: seconds that sessions which are made here are there after their last use, or half of it."""
        self._ttl = ttl
        self._clock = clock
        self._sessions: OrderedDict[str, str] = OrderedDict()
        self._contexts: OrderedDict[str, str] = OrderedDict()  # by session
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def open(self, client: AsyncBuntime, conversation: Conversation, asked: str | None) -> Opened:
        """The session that was asked for, or the conversation's own, which is made at its first use.

        Raises SessionNotFound for one that was asked for.
        """
        if asked is not None:
            session = await self._kept(await client.sessions.get(asked))
            self._use(conversation, session.id)
            return Opened(session, "")
        if conversation.name is None:
            return await self._made(client, conversation, "This session is new. Give its id as `session` from now on.")
        async with self.turn(conversation.name):  # calls that come together make one session
            known = self._sessions.get(conversation.name)
            if known is None:
                return await self._made(client, conversation, "This session is new.")
            try:
                session = await self._kept(await client.sessions.get(known))
            except SessionNotFound:
                gone = f"The session {known} has expired or was deleted: its files are gone. This session is new."
                return await self._made(client, conversation, gone)
            self._use(conversation, known)
            return Opened(session, "")

    async def new(self, client: AsyncBuntime, conversation: Conversation) -> Opened:
        return await self._made(client, conversation, "This session is new; the one before goes on by its id.")

    def turn(self, name: str) -> asyncio.Lock:
        """Of a conversation, or of a session's id: what is made once is made one call after another."""
        return self._turns.setdefault(name, asyncio.Lock())

    def current(self, conversation: Conversation) -> str | None:
        """The id of its session, where it has one."""
        return None if conversation.name is None else self._sessions.get(conversation.name)

    def forget(self, conversation: Conversation, session_id: str) -> None:
        """This session was deleted."""
        self.keep_context(session_id, None)
        if conversation.name is not None and self.current(conversation) == session_id:
            del self._sessions[conversation.name]

    def context_of(self, session_id: str) -> str | None:
        return self._contexts.get(session_id)

    def keep_context(self, session_id: str, context_id: str | None) -> None:
        """None: there is none any more."""
        self._contexts.pop(session_id, None)
        if context_id is not None:
            self._contexts[session_id] = context_id
            _bound(self._contexts)

    async def _kept(self, session: AsyncSession) -> AsyncSession:
        """One that was made here lives on while it is used; others have an end that their owner chose."""
        left = (session.expires_at - self._clock()).total_seconds()
        if left < self._ttl / 2 and MADE_BY.items() <= session.metadata.items():
            await session.extend(self._ttl)
        return session

    async def _made(self, client: AsyncBuntime, conversation: Conversation, note: str) -> Opened:
        session = await client.sessions.create(ttl=self._ttl, metadata=MADE_BY)
        self._use(conversation, session.id)
        return Opened(session, note)

    def _use(self, conversation: Conversation, session_id: str) -> None:
        if conversation.name is not None:
            self._sessions.pop(conversation.name, None)
            self._sessions[conversation.name] = session_id
            _bound(self._sessions)


def hashed(key: str) -> str:
    """What stands for a key where it has to be remembered."""
    return hashlib.sha256(key.encode()).hexdigest()


def _bound(remembered: OrderedDict[str, str]) -> None:
    while len(remembered) > MOST:
        remembered.popitem(last=False)
