"""A key has a bounded number of open conversations, and the oldest idle one ends for a new one."""

from dataclasses import dataclass

import pytest
from buntime_cli.mcp import open_conversations
from buntime_cli.mcp.open_conversations import IDLE_SECONDS, Full, OpenConversations


@dataclass(slots=True)
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allows two open conversations per key."""
    monkeypatch.setattr(open_conversations, "MOST_OPEN", 2)


def opened(clock: Clock, *names: str) -> OpenConversations:
    conversations = OpenConversations(clock)
    for name in names:
        assert conversations.reserve("a") is None
        conversations.settle("a", name)
    return conversations


def test_a_conversation_in_use_does_not_end() -> None:
    conversations = opened(Clock(), "one", "other")
    with conversations.call("a", "one"):
        assert conversations.reserve("a") == "other"
        with pytest.raises(Full):
            conversations.reserve("a")
        assert conversations.reserve("b") is None
    assert conversations.reserve("a") == "one"


def test_conversations_that_are_being_opened_count() -> None:
    conversations = opened(Clock())
    assert [conversations.reserve("a"), conversations.reserve("a")] == [None, None]
    with pytest.raises(Full):
        conversations.reserve("a")
    conversations.settle("a", None)
    assert conversations.reserve("a") is None


def test_another_key_neither_uses_nor_ends_a_conversation() -> None:
    conversations = opened(Clock(), "one", "other")
    conversations.forget("b", "one")
    with conversations.call("b", "one"):
        assert conversations.reserve("a") == "one"


def test_conversations_that_the_library_ended_as_idle_are_forgotten() -> None:
    clock = Clock()
    conversations = opened(clock, "one", "other")
    with conversations.call("a", "other"):
        clock.now += IDLE_SECONDS + 1
        assert conversations.reserve("a") is None
