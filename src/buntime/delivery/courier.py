"""Delivers to one webhook."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from buntime.account import AccountStatus
from buntime.delivery.lanes import Lanes
from buntime.delivery.looking import Looks
from buntime.event import EventType
from buntime.ports import BEGINNING, EventDelivery, Place, Store
from buntime.webhook import Delivery, DeliveryState, Off, Webhook, after, holds_back, of_webhook, why_off

if TYPE_CHECKING:
    from buntime.delivery.posting import Post

log = structlog.get_logger()

BATCH = 100  # deliveries read at once
PASS = 100  # chains that are started before the courier begins again with what is due first
AT_ONCE = 8  # attempts at one endpoint; one while it fails
CHANGES = 10  # attempts to turn an endpoint off while others change it


class Courier:
    """Works for as long as something is due at the webhook.

    The events of one session make a chain: one after another. Chains run side by side.
    """

    def __init__(
        self,
        webhook_id: str,
        store: Store,
        post: "Post",
        lanes: Lanes,
        looks: Looks,
        clock: Callable[[], float],
        count: Callable[[DeliveryState], None],
        has_duty: Callable[[], bool],
        *,
        careful: bool,
    ) -> None:
        """`has_duty`: whether this host still is the one that delivers.

        `careful`: sends one event first, because what was sent before it could not be settled."""
        self.more = asyncio.Event()  # something may be due that was not
        self.settles = False  # it has settled a delivery
        self.again = False  # it ended because it may not send, which may have changed by now
        self._webhook = webhook_id
        self._store = store
        self._post = post
        self._lanes = lanes
        self._looks = looks
        self._clock = clock
        self._count = count
        self._has_duty = has_duty
        self._running: set[str] = set()  # chains
        self._ended = asyncio.Event()  # one of them has
        self._account = ""
        self._failing = False
        self._careful = careful

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                self.more.clear()
                await self._begin(group)
                if not self._running and not self.more.is_set():
                    return
                await self.more.wait()

    async def _begin(self, group: asyncio.TaskGroup) -> None:
        """Begins chains of what is due, page by page, as there is room for them."""
        met = set(self._running)  # a session that ends meanwhile has events before this page, which go first
        place: Place | None = BEGINNING
        while place is not None:
            await self._room()
            chains, place = await self._due(met, place)
            for name, chain in chains.items():
                await self._room()
                met.add(name)
                self._running.add(name)
                group.create_task(self._deliver(name, chain), name=f"delivery to {self._webhook}")
            if len(met) > PASS:
                self.more.set()
                return

    async def _due(self, busy: Collection[str], place: Place) -> tuple[dict[str, list[EventDelivery]], Place | None]:
        """A page of what is due, by chains, and where the next page begins."""
        async with self._looks.look():
            webhook = await self._store.get_webhook(self._webhook)
            if webhook is None or not await self._may_send(webhook):
                return {}, None
            self._account = webhook.account
            self._failing = webhook.failing_since is not None
            page = await self._store.due_deliveries(self._webhook, int(self._clock()), BATCH, busy, place)
        chains: dict[str, list[EventDelivery]] = {}
        for one in page.found:
            name = one.event.session or one.delivery.id
            if name not in busy:
                chains.setdefault(name, []).append(one)
        return chains, page.end

    async def _room(self) -> None:
        while len(self._running) >= (1 if self._failing or (self._careful and not self.settles) else AT_ONCE):
            self._ended.clear()
            await self._ended.wait()

    async def _deliver(self, name: str, chain: list[EventDelivery]) -> None:
        try:
            for one in chain:
                settled = await self._attempt(one)
                if settled is None or holds_back(settled):
                    return
        finally:
            self._running.remove(name)
            self._ended.set()
            self.more.set()

    async def _attempt(self, one: EventDelivery) -> Delivery | None:
        """The delivery after it. None: nothing more is sent now."""
        async with self._lanes.place(self._webhook, self._account, failing=self._failing):
            webhook = await self._store.get_webhook(self._webhook)  # it may have changed before there was a place
            if webhook is None or webhook.off is not None or not await self._may_send(webhook):
                return None
            outcome = await self._post(webhook, one.event)
        now = self._clock()
        settled = after(one.delivery, outcome, now)
        self._failing = not outcome.worked
        is_settled = await self._store.settle_delivery(settled)
        self.settles = True
        if is_settled:
            self._count(settled.state)
        off = why_off(webhook, outcome, now)
        if off is not None:
            await self._turn_off(off, webhook.url)
            return None
        return settled if is_settled else None  # if it was asked for again meanwhile, it goes before later events

    async def _may_send(self, webhook: Webhook) -> bool:
        """Whether this host delivers, and the webhook's account is active. The operator's endpoint has none."""
        if not self._has_duty():
            return False
        account = await self._store.get_account(webhook.account)
        if account is None or account.status is AccountStatus.ACTIVE:
            return True
        self.again = True
        return False

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
