"""Deliveries from a real store to real receivers, with a clock that a test moves."""

import asyncio
import gc
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from buntime.cause import Cause
from buntime.delivery import delivering
from buntime.delivery.connecting import Resolve
from buntime.event import AccountEvent, EventType, new_event
from buntime.ids import new_id
from buntime.lifecycle.sealing import Vault
from buntime.operations.signing import Signing
from buntime.stores.sqlite.store import SqliteStore
from buntime.webhook import Delivery, DeliveryState, Network, Webhook
from tests.waiting import PATIENCE

NOW = 1_700_000_000.0
LOCAL: Sequence[Network] = (ip_network("127.0.0.0/8"),)


@dataclass(slots=True)
class Clock:
    now: float = NOW

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True)
class Sending:
    """A store, and what delivers from it."""

    store: SqliteStore
    clock: Clock
    secrets: dict[str, str] = field(default_factory=dict)  # webhook id → secret
    states: list[DeliveryState] = field(default_factory=list)  # of deliveries, after each attempt
    has_duty: bool = True
    signing: Signing = field(default_factory=lambda: Signing(Vault(bytes(32))))

    async def webhook(self, url: str, account: str = "acc_one", types: frozenset[EventType] | None = None) -> str:
        webhook_id = new_id("whk_")
        secret, sealed = self.signing.new(webhook_id)
        await self.store.add_webhook(Webhook(webhook_id, account, url, (sealed,), int(NOW), types), None, 100)
        self.secrets[webhook_id] = secret
        return webhook_id

    async def happens(self, session: str | None = "ses_a", account: str = "acc_one", number: int = 0) -> AccountEvent:
        """An event that is stored when this returns."""
        cause = Cause("key", account, "req_1", "key_1", "192.0.2.1")
        data = {"number": number}
        event = new_event(account, EventType.SESSION_IDLE, self.clock.now, data, session=session, cause=cause)
        self.store.note_events([event])
        await self.store.drop_events(0, 10**9)  # a change, which takes noted events along
        return event

    async def deliveries(self, webhook_id: str) -> list[Delivery]:
        """The oldest event first."""
        found, _ = await self.store.list_deliveries(webhook_id, 1000, 0)
        return [one.delivery for one in reversed(found)]

    async def delivery(self, webhook_id: str, attempts: int = 1) -> Delivery:
        """The only delivery, once it has had so many attempts."""

        async def tried() -> Delivery | None:
            (one,) = await self.deliveries(webhook_id)
            return one if one.attempts >= attempts else None

        return await soon(tried)

    async def change(self, webhook_id: str, **fields: object) -> None:
        webhook = await self.store.get_webhook(webhook_id)
        assert webhook is not None
        assert await self.store.change_webhook(webhook, replace(webhook, **fields))  # type: ignore[arg-type]


async def soon[T](look: Callable[[], Awaitable[T | None]]) -> T:
    """The first result that is not None."""
    async with asyncio.timeout(PATIENCE):
        while (found := await look()) is None:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.005)
    return found


@asynccontextmanager
async def sending(
    directory: Path,
    networks: Sequence[Network] = LOCAL,
    trusted: ssl.SSLContext | None = None,
    resolve: Resolve | None = None,
) -> AsyncIterator[Sending]:
    store = await SqliteStore.open(directory / "store.db")
    made = Sending(store, Clock())
    try:
        parts = (store, made.signing, networks, made.clock, made.states.append, trusted, resolve)
        async with delivering.delivering(*parts, lambda: made.has_duty):
            yield made
    finally:
        await store.close()
    gc.collect()


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that jumps is seen soon."""
    monkeypatch.setattr(delivering, "LOOK_SECONDS", 0.02)


@pytest.fixture
async def sender(tmp_path: Path) -> AsyncIterator[Sending]:
    async with sending(tmp_path) as made:
        yield made
