"""Each conversation gets its session once, within bounds."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from buntime_cli.mcp import conversations
from buntime_cli.mcp.conversations import Conversation, Conversations
from buntime_sdk import SessionNotFound, Unavailable
from buntime_sdk.testing import AsyncFakeBuntime

TTL = 3600
ONE, OTHER = (Conversation.of_request("btk_a", {"mcp-session-id": name}) for name in ("one", "other"))
NOBODY = Conversation.of_request("btk_a", {})
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Kept:
    """Conversations and their fake server."""

    now: datetime = BEGIN
    client: AsyncFakeBuntime = field(init=False)
    all: Conversations = field(init=False)

    def __post_init__(self) -> None:
        self.client = AsyncFakeBuntime(clock=lambda: self.now, max_retries=0)
        self.all = Conversations(TTL, lambda: self.now)

    async def opened(self, conversation: Conversation, asked: str | None = None) -> tuple[str, str]:
        """Returns the session's id and the note."""
        opened = await self.all.open(self.client, conversation, asked)
        return opened.session.id, opened.note

    def passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @property
    def creates(self) -> int:
        return sum(one.path == "/sessions/create" for one in self.client.requests)


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits memory to two conversations and the contexts of two sessions."""
    monkeypatch.setattr(conversations, "MOST", 2)


async def test_the_first_use_creates_a_session_and_later_uses_share_it(kept: Kept) -> None:
    assert kept.all.current(ONE) is None
    first, note = await kept.opened(ONE)
    assert note == "This session is new."
    assert await kept.opened(ONE) == (first, "")
    assert kept.all.current(ONE) == first
    assert kept.creates == 1


async def test_simultaneous_first_calls_create_one_session(kept: Kept) -> None:
    opened = await asyncio.gather(*(kept.opened(ONE) for _ in range(8)))
    assert len({session for session, _ in opened}) == 1
    assert sorted(note for _, note in opened) == [""] * 7 + ["This session is new."]
    assert kept.creates == 1


async def test_simultaneous_calls_that_find_their_session_gone_create_one(kept: Kept) -> None:
    first, _ = await kept.opened(ONE)
    await kept.client.sessions.delete(first)
    opened = await asyncio.gather(*(kept.opened(ONE) for _ in range(8)))
    assert len({session for session, _ in opened} - {first}) == 1
    assert kept.creates == 2


async def test_a_failed_first_call_lets_the_next_one_try(kept: Kept) -> None:
    kept.client.fail("POST", "/sessions/create", "unavailable")
    failed, made = await asyncio.gather(kept.opened(ONE), kept.opened(ONE), return_exceptions=True)
    assert isinstance(failed, Unavailable)
    assert not isinstance(made, BaseException)
    assert kept.all.current(ONE) == made[0]


async def test_conversations_differ_by_their_id_and_by_their_key(kept: Kept) -> None:
    stranger = Conversation.of_request("btk_b", {"mcp-session-id": "one"})
    assert len({(await kept.opened(one))[0] for one in (ONE, OTHER, stranger, Conversation.of_process())}) == 4
    assert "btk_b" not in str(stranger.name)


async def test_without_a_conversation_each_call_creates_a_session(kept: Kept) -> None:
    first, note = await kept.opened(NOBODY)
    assert note == "This session is new. Pass its id as `session` from now on."
    assert (await kept.opened(NOBODY))[0] != first
    assert await kept.opened(NOBODY, first) == (first, "")
    assert kept.all.current(NOBODY) is None


async def test_an_expired_session_is_replaced_by_one_that_says_so(kept: Kept) -> None:
    first, _ = await kept.opened(ONE)
    kept.passes(TTL + 1)
    second, note = await kept.opened(ONE)
    assert second != first
    assert note == f"The session {first} expired or was deleted, and its files are gone. This session is new."
    assert await kept.opened(ONE) == (second, "")


async def test_use_extends_a_session(kept: Kept) -> None:
    first, _ = await kept.opened(ONE)
    for _ in range(10):
        kept.passes(TTL * 0.6)
        assert await kept.opened(ONE) == (first, "")


async def test_a_session_with_much_time_left_is_not_extended(kept: Kept) -> None:
    await kept.opened(ONE)
    kept.passes(TTL * 0.4)
    await kept.opened(ONE)
    assert [one.method for one in kept.client.requests] == ["POST", "GET"]


async def test_an_expiry_that_the_owner_chose_stays(kept: Kept) -> None:
    theirs = await kept.client.sessions.create(ttl=TTL)
    kept.passes(TTL * 0.6)
    await kept.opened(ONE, theirs.id)
    kept.passes(TTL * 0.6)
    with pytest.raises(SessionNotFound):
        await kept.opened(ONE, theirs.id)


async def test_a_requested_session_becomes_the_conversations_own(kept: Kept) -> None:
    first, _ = await kept.opened(ONE)
    other, _ = await kept.opened(OTHER)
    assert await kept.opened(ONE, other) == (other, "")
    assert await kept.opened(ONE) == (other, "")
    assert await kept.opened(ONE, first) == (first, "")


async def test_a_missing_session_is_an_error_and_changes_nothing(kept: Kept) -> None:
    first, _ = await kept.opened(ONE)
    with pytest.raises(SessionNotFound):
        await kept.opened(ONE, "ses_000000000000000000")
    assert kept.all.current(ONE) == first
    assert kept.creates == 1


async def test_a_new_session_replaces_the_previous_one(kept: Kept) -> None:
    first, _ = await kept.opened(ONE)
    made = (await kept.all.new(kept.client, ONE)).session.id
    assert await kept.opened(ONE) == (made, "")
    assert await kept.opened(OTHER, first) == (first, "")


async def test_only_a_deleted_session_is_forgotten(kept: Kept) -> None:
    first, _ = await kept.opened(ONE)
    kept.all.keep_context(first, "ctx_a")
    kept.all.forget(OTHER, "ses_000000000000000000")
    kept.all.forget(NOBODY, "ses_000000000000000000")
    kept.all.forget(ONE, "ses_000000000000000000")
    assert (kept.all.current(ONE), kept.all.context_of(first)) == (first, "ctx_a")
    kept.all.forget(ONE, first)
    assert (kept.all.current(ONE), kept.all.context_of(first)) == (None, None)


@pytest.mark.usefixtures("few")
async def test_the_most_recently_used_conversations_are_remembered(kept: Kept) -> None:
    third = Conversation.of_request("btk_a", {"mcp-session-id": "third"})
    first, _ = await kept.opened(ONE)
    await kept.opened(OTHER)
    await kept.opened(ONE)
    await kept.opened(third)
    assert kept.all.current(ONE) == first
    assert kept.all.current(OTHER) is None


@pytest.mark.usefixtures("few")
def test_the_most_recently_used_contexts_are_remembered(kept: Kept) -> None:
    for session in ("ses_a", "ses_b", "ses_a", "ses_c"):
        kept.all.keep_context(session, f"ctx_of_{session}")
    assert kept.all.context_of("ses_a") == "ctx_of_ses_a"
    assert kept.all.context_of("ses_b") is None
