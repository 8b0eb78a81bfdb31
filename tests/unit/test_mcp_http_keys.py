"""Over HTTP, nothing is stored for unknown keys, and no key can use all conversations."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx2
import pytest
from buntime_cli.mcp import keys, open_conversations
from buntime_cli.mcp.http_keys import RequireKey
from buntime_cli.mcp.keys import KNOWN_SECONDS, Keys, asking
from buntime_cli.mcp.server import build, http_app
from buntime_cli.mcp.tool_context import Settings
from buntime_sdk import BuntimeError, ConnectionFailed, Forbidden, RateLimitExceeded, Unauthorized

URL = "http://127.0.0.1:8090/mcp"
NEWEST = "2026-07-28"


@dataclass(slots=True)
class Known:
    """A fake server's known keys, the questions that it got, and its clock."""

    known: set[str] = field(default_factory=lambda: {"btk_a", "btk_b"})
    failure: BuntimeError | None = None
    asked: list[str] = field(default_factory=list)
    now: float = 0.0

    async def ask(self, key: str) -> None:
        self.asked.append(key)
        if self.failure is not None:
            raise self.failure
        if key not in self.known:
            raise Unauthorized("Unknown API key.", code="unauthorized", status=401)

    def keys(self) -> Keys:
        return Keys(self.ask, self.clock)

    def clock(self) -> float:
        return self.now


@dataclass(slots=True)
class Caller:
    http: httpx2.AsyncClient

    async def opens(self, key: str, revision: str | None = None) -> httpx2.Response:
        about = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": about}
        return await self.http.post(URL, headers=_headers(key, "mcp-protocol-version", revision), json=hello)

    async def status_of(self, key: str, conversation: str, method: str = "POST") -> int:
        ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        headers = _headers(key, "mcp-session-id", conversation)
        return (await self.http.request(method, URL, headers=headers, json=ping)).status_code


def _headers(key: str, name: str, value: str | None) -> dict[str, str]:
    accepted = {"Accept": "application/json, text/event-stream", "Authorization": f"Bearer {key}"}
    return accepted if value is None else {**accepted, name: value}


@asynccontextmanager
async def served(known: Known) -> AsyncIterator[Caller]:
    """Serves the tools over HTTP in this process."""
    app = http_app(build(Settings("http://127.0.0.1:9", None, 3600)), "127.0.0.1", ())
    transport = httpx2.ASGITransport(RequireKey(app, known.keys()))
    async with app.router.lifespan_context(app), httpx2.AsyncClient(transport=transport) as http:
        yield Caller(http)


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allows two open conversations per key."""
    monkeypatch.setattr(open_conversations, "MOST_OPEN", 2)


# --- keys ---


async def test_an_unknown_key_opens_no_conversation() -> None:
    async with served(Known()) as caller:
        refused = await caller.opens("btk_0")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert "mcp-session-id" not in refused.headers
        assert refused.text.startswith("unauthorized: Unknown API key. The user must provide a valid key")
        assert (await caller.opens("btk_a")).status_code == 200


@pytest.mark.parametrize(
    ("failure", "status", "after"),
    [
        (ConnectionFailed("No connection.", begun=False), 503, "5"),
        (BuntimeError("It failed.", code="internal_error", status=500), 503, "5"),
        (BuntimeError("Not JSON.", code="unexpected_answer", status=200), 503, "5"),
        (RateLimitExceeded("Too many.", code="rate_limit_exceeded", status=429, retry_after=30), 429, "30"),
        (Forbidden("The account is suspended.", code="forbidden", status=403), 403, None),
    ],
    ids=lambda given: given.code if isinstance(given, BuntimeError) else None,
)
async def test_without_the_servers_answer_no_conversation_opens_and_it_is_asked_again(
    failure: BuntimeError, status: int, after: str | None
) -> None:
    known = Known(failure=failure)
    async with served(known) as caller:
        refused = await caller.opens("btk_a")
        assert (refused.status_code, refused.headers.get("retry-after")) == (status, after)
        assert refused.text.startswith(f"{failure.code}: ")
        known.failure = None
        assert (await caller.opens("btk_a")).status_code == 200


@pytest.mark.parametrize(("key", "status"), [("btk_a", 200), ("btk_0", 401)])
async def test_the_servers_answer_counts_for_a_minute(key: str, status: int) -> None:
    known = Known()
    async with served(known) as caller:
        for _ in range(3):
            assert (await caller.opens(key)).status_code == status
        assert known.asked == [key]
        known.now += KNOWN_SECONDS + 1
        assert (await caller.opens(key)).status_code == status
        assert known.asked == [key, key]


async def test_a_revoked_key_is_refused_after_that_minute() -> None:
    known = Known()
    of = known.keys()
    assert await of.refusal("btk_a") is None
    known.known.clear()
    known.now += KNOWN_SECONDS + 1
    assert isinstance(await of.refusal("btk_a"), Unauthorized)


async def test_the_latest_answers_about_keys_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "MOST", 2)
    known = Known()
    of = known.keys()
    for key in ("btk_a", "btk_1", "btk_2", "btk_2", "btk_a"):
        await of.refusal(key)
    assert known.asked == ["btk_a", "btk_1", "btk_2", "btk_a"]


async def test_an_impossible_key_is_unknown_and_a_missing_server_is_reported() -> None:
    of = Keys(asking("http://127.0.0.1:9"))
    assert isinstance(await of.refusal("btk_é"), Unauthorized)
    assert isinstance(await of.refusal("btk_a"), ConnectionFailed)


async def test_the_newest_revision_opens_no_conversation_and_needs_no_check() -> None:
    known = Known()
    async with served(known) as caller:
        await caller.opens("btk_0", NEWEST)
        assert known.asked == []
        assert (await caller.opens("btk_0", "2025-06-18")).status_code == 401


# --- conversations ---


@pytest.mark.usefixtures("two")
async def test_the_oldest_idle_conversation_of_a_key_ends_for_a_new_one() -> None:
    async with served(Known()) as caller:
        theirs = (await caller.opens("btk_b")).headers["mcp-session-id"]
        first, second = [(await caller.opens("btk_a")).headers["mcp-session-id"] for _ in range(2)]
        assert await caller.status_of("btk_a", first) == 200  # makes the second one the oldest
        third = (await caller.opens("btk_a")).headers["mcp-session-id"]
        statuses = [await caller.status_of("btk_a", name) for name in (first, second, third)]
        assert statuses == [200, 404, 200]
        assert await caller.status_of("btk_b", theirs) == 200


@pytest.mark.usefixtures("two")
async def test_a_conversation_that_its_client_ended_frees_its_place() -> None:
    async with served(Known()) as caller:
        first, second = [(await caller.opens("btk_a")).headers["mcp-session-id"] for _ in range(2)]
        assert await caller.status_of("btk_a", second, "DELETE") == 200
        await caller.opens("btk_a")
        assert await caller.status_of("btk_a", first) == 200


@pytest.mark.usefixtures("two")
async def test_a_request_that_opens_no_conversation_takes_no_place() -> None:
    async with served(Known()) as caller:
        for _ in range(3):
            assert await caller.status_of("btk_a", "") == 404
            refused = await caller.http.post(URL, headers=_headers("btk_a", "x", None), json={"jsonrpc": "2.0"})
            assert refused.status_code == 400
        first, second = [(await caller.opens("btk_a")).headers["mcp-session-id"] for _ in range(2)]
        assert [await caller.status_of("btk_a", name) for name in (first, second)] == [200, 200]
