"""Delivers to one webhook."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from buntime.account import AccountStatus
from buntime.delivery.lanes import Lanes
from buntime.delivery.posting import Post
from buntime.event import EventType
from buntime.ports import EventDelivery, Store
from buntime.webhook import Delivery, Off, Webhook, after, holds_back, of_webhook, why_off

log = structlog.get_logger()

BATCH = 100  # deliveries read at once
AT_ONCE = 8  # attempts at one endpoint; one while it fails
SLOW_SECONDS = 1.0  # an endpoint whose last attempt took longer is slow
CHANGES = 10  # attempts to turn an endpoint off while others change it


class Courier:
    """Works for as long as something is due at the webhook.

    The events of one session make a chain: one after another. Chains run side by side.
    """

    def __init__(self, webhook_id: str, store: Store, post: Post, lanes: Lanes, clock: Callable[[], float]) -> None:
        self.more = asyncio.Event()  # more may be due, or a chain has ended
        self._webhook = webhook_id
        self._store = store
        self._post = post
        self._lanes = lanes
        self._clock = clock
        self._running: set[str] = set()  # chains
        self._account = ""
        self._failing = self._slow = False

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                self.more.clear()
                await self._room()  # each commit wakes couriers, and a full one has nothing to look for
                chains = await self._due()
                for name, chain in chains.items():
                    await self._room()
                    self._running.add(name)
                    group.create_task(self._deliver(name, chain), name=f"delivery to {self._webhook}")
                if chains:
                    continue
                if not self._running:
                    return
                await self.more.wait()

    async def _due(self) -> dict[str, list[EventDelivery]]:
        """What is due, by chains that do not run yet."""
        webhook = await self._store.get_webhook(self._webhook)
        if webhook is None or not await self._may_send(webhook):
            return {}
        self._account = webhook.account
        self._failing = webhook.failing_since is not None
        chains: dict[str, list[EventDelivery]] = {}
        for one in await self._store.due_deliveries(self._webhook, int(self._clock()), BATCH, self._running):
            name = one.event.session or one.delivery.id
            if name not in self._running:
                chains.setdefault(name, []).append(one)
        return chains

    async def _room(self) -> None:
        while len(self._running) >= (1 if self._failing else AT_ONCE):
            self.more.clear()
            await self.more.wait()

    async def _deliver(self, name: str, chain: list[EventDelivery]) -> None:
        try:
            for one in chain:
                settled = await self._attempt(one)
                if settled is None or holds_back(settled):
                    return
        finally:
            self._running.remove(name)
            self.more.set()

    async def _attempt(self, one: EventDelivery) -> Delivery | None:
        """The delivery after it. None: nothing more is sent now."""
        async with self._lanes.place(self._account, slow=self._failing or self._slow):
            webhook = await self._store.get_webhook(self._webhook)  # it may have changed before there was a place
            if webhook is None or webhook.off is not None or not await self._may_send(webhook):
                return None
            loop = asyncio.get_running_loop()
            began = loop.time()
            outcome = await self._post(webhook, one.event)
            self._slow = loop.time() - began > SLOW_SECONDS
        now = self._clock()
        settled = after(one.delivery, outcome, now)
        self._failing = not outcome.worked
        await self._store.settle_delivery(settled)
        off = why_off(webhook, outcome, now)
        if off is not None:
            await self._turn_off(off, webhook.url)
            return None
        return settled

    async def _may_send(self, webhook: Webhook) -> bool:
        """Whether its account is active. The operator's endpoint has none."""
        account = await self._store.get_account(webhook.account)
        return account is None or account.status is AccountStatus.ACTIVE

    async def _turn_off(self, why: Off, url: str) -> None:
        """Unless the webhook has another URL by now than the one that answered."""
        for _ in range(CHANGES):
            webhook = await self._store.get_webhook(self._webhook)
            if webhook is None or webhook.off is not None or webhook.url != url:
                return
            off, told = replace(webhook, off=why), of_webhook(webhook, EventType.WEBHOOK_DISABLED, self._clock(), why)
            if await self._store.change_webhook(webhook, off, (told,)):
                log.warning("webhook_disabled", webhook=webhook.id, account=webhook.account, reason=why)
                return
