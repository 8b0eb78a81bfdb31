"""Which session a conversation uses.

Over stdio the process is one conversation. Over HTTP with older clients, a conversation is an `Mcp-Session-Id` together
with the API key. Newer HTTP clients send nothing that lasts: a result names its session, and the model passes that name
back as `session`.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from weakref import WeakValueDictionary

from buntime_sdk import AsyncBuntime, AsyncSession, SessionNotFound, SleepPolicyDict

MOST = 10_000  # remembered conversations
MADE_BY = {"madeBy": "buntime mcp"}
AWAKE: SleepPolicyDict = {"awake_while": "processes"}


@dataclass(frozen=True, slots=True)
class Conversation:
    """The name is None if nothing distinguishes the conversation from others."""

    name: str | None

    @classmethod
    def of_process(cls) -> "Conversation":
        return cls("process")

    @classmethod
    def of_request(cls, key: str, headers: Mapping[str, str]) -> "Conversation":
        """The key is part of the name, so that guessing an id gives no access to another key's conversation."""
        given = headers.get("mcp-session-id")
        return cls(None if given is None else f"{hashed(key)}:{given}")


@dataclass(frozen=True, slots=True)
class Opened:
    """`note`: what the model must know about the session."""

    session: AsyncSession
    note: str


def _now() -> datetime:
    return datetime.now(UTC)


class Conversations:
    def __init__(self, ttl: int, clock: Callable[[], datetime] = _now) -> None:
        """`ttl`: seconds that a session created here lives; use in the second half of that time renews it."""
        self.ttl = ttl
        self._clock = clock
        self._sessions: OrderedDict[str, str] = OrderedDict()
        self._contexts: OrderedDict[str, str] = OrderedDict()  # session → context
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def open(self, client: AsyncBuntime, conversation: Conversation, asked: str | None) -> Opened:
        """The requested session, or else the conversation's own, which is created at its first use.

        Raises SessionNotFound for a requested session that does not exist.
        """
        if asked is not None:
            session = await self._kept(await client.sessions.get(asked))
            self._use(conversation, session.id)
            return Opened(session, "")
        if conversation.name is None:
            return await self._made(client, conversation, "This session is new. Pass its id as `session` from now on.")
        async with self.turn(conversation.name):  # simultaneous calls create one session
            known = self._sessions.get(conversation.name)
            if known is None:
                return await self._made(client, conversation, "This session is new.")
            try:
                session = await self._kept(await client.sessions.get(known))
            except SessionNotFound:
                gone = f"The session {known} expired or was deleted, and its files are gone. This session is new."
                return await self._made(client, conversation, gone)
            self._use(conversation, known)
            return Opened(session, "")

    async def new(
        self,
        client: AsyncBuntime,
        conversation: Conversation,
        name: str | None = None,
        image: str | None = None,
        snapshot_id: str | None = None,
        *,
        awaits_programs: bool = False,
    ) -> Opened:
        """The session that has the name, or else a new one. `awaits_programs`: it stays awake while its programs work.

        Raises ImageNotFound, SnapshotNotFound, Forbidden, and InvalidRequest for both an image and a snapshot.
        """
        policy = AWAKE if awaits_programs else None
        note = "This session is new. The previous one is still available by its id."
        if not name:
            return await self._made(client, conversation, note, image or None, snapshot_id or None, policy)
        session = await client.sessions.get_or_create(
            name,
            ttl=self.ttl,
            metadata=MADE_BY,
            image=image or None,
            snapshot_id=snapshot_id or None,
            sleep_policy=policy,
        )
        if session.existed:
            await self._kept(await session.refresh())
            note = "This session existed already, with its files. The previous one is still available by its id."
        self._use(conversation, session.id)
        return Opened(session, note)

    def turn(self, name: str) -> asyncio.Lock:
        """The lock of a conversation or session, so that simultaneous calls create only one session or context."""
        return self._turns.setdefault(name, asyncio.Lock())

    def current(self, conversation: Conversation) -> str | None:
        """The id of the conversation's session, if it has one."""
        return None if conversation.name is None else self._sessions.get(conversation.name)

    def forget(self, conversation: Conversation, session_id: str) -> None:
        """Forgets a deleted session."""
        self._contexts.pop(session_id, None)
        if conversation.name is not None and self.current(conversation) == session_id:
            del self._sessions[conversation.name]

    def context_of(self, session_id: str) -> str | None:
        return self._contexts.get(session_id)

    def keep_context(self, session_id: str, context_id: str) -> None:
        """Remembers the context as the session's latest."""
        self._contexts.pop(session_id, None)
        self._contexts[session_id] = context_id
        _bound(self._contexts)

    def forget_context(self, session_id: str, context_id: str) -> None:
        """Forgets a context that is gone. Another one stays the latest."""
        if self._contexts.get(session_id) == context_id:
            del self._contexts[session_id]

    def forget_contexts(self, session_id: str) -> None:
        """Forgets the contexts of a session, which have ended."""
        self._contexts.pop(session_id, None)

    async def _kept(self, session: AsyncSession) -> AsyncSession:
        """Extends a session that was created here. The expiry of other sessions is their owner's choice."""
        if session.expires_at is None:
            return session
        left = (session.expires_at - self._clock()).total_seconds()
        if left < self.ttl / 2 and MADE_BY.items() <= session.metadata.items():
            await session.extend(self.ttl)
        return session

    async def _made(
        self,
        client: AsyncBuntime,
        conversation: Conversation,
        note: str,
        image: str | None = None,
        snapshot_id: str | None = None,
        policy: SleepPolicyDict | None = None,
    ) -> Opened:
        session = await client.sessions.create(
            ttl=self.ttl, metadata=MADE_BY, image=image, snapshot_id=snapshot_id, sleep_policy=policy
        )
        self._use(conversation, session.id)
        return Opened(session, note)

    def _use(self, conversation: Conversation, session_id: str) -> None:
        if conversation.name is not None:
            self._sessions.pop(conversation.name, None)
            self._sessions[conversation.name] = session_id
            _bound(self._sessions)


def hashed(key: str) -> str:
    """A name for the key that can be stored."""
    return hashlib.sha256(key.encode()).hexdigest()


def _bound(remembered: OrderedDict[str, str]) -> None:
    while len(remembered) > MOST:
        remembered.popitem(last=False)
