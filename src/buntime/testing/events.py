"""The part of the fake store about events, webhooks and deliveries."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import replace

from buntime.account import Account, AccountStatus
from buntime.errors import IdempotencyInProgress, ResourceLimitExceeded, Unauthorized
from buntime.event import AccountEvent, EventType
from buntime.ids import new_id
from buntime.ports import BEGINNING, Answer, DeliveryNumbers, DuePage, EventDelivery, News, NumberedEvent, Place
from buntime.session import Session, State
from buntime.webhook import MOST_LISTED, Delivery, DeliveryState, Webhook


class FakeEvents:
    """See `testing.store.FakeStore`."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.sessions: dict[str, Session] = {}
        self.events: list[NumberedEvent] = []
        self.webhooks: dict[str, Webhook] = {}
        self.deliveries: dict[str, tuple[NumberedEvent, Delivery]] = {}  # by the delivery's id
        self.redeliveries: Counter[str] = Counter()  # by the webhook's id
        self.answers: dict[tuple[str, str], Answer] = {}
        self._last = 0
        self._stored: Callable[[], None] = lambda: None

    def on_stored(self, call: Callable[[], None]) -> None:
        self._stored = call

    def note_events(self, events: Sequence[AccountEvent], stored: Callable[[], None] | None = None) -> None:
        for event in events:
            json.dumps(event.data, default=dict)
        for event in filter(self._may_come, events):
            self._last += 1
            numbered = NumberedEvent(self._last, event)
            self.events.append(numbered)
            for webhook in self.webhooks.values():
                if webhook.gets(event):
                    delivery = Delivery(new_id("dlv_"), webhook.id, DeliveryState.PENDING, 0, event.time)
                    self.deliveries[delivery.id] = (numbered, delivery)
        self._stored()
        if stored is not None:
            stored()

    def _may_come(self, event: AccountEvent) -> bool:
        if event.type is not EventType.PROCESS_EXITED:
            return True
        session, account = self.sessions.get(event.session or ""), self.accounts.get(event.account)
        is_deleted = account is not None and account.status is AccountStatus.DELETED
        return session is not None and session.state is not State.DELETING and not is_deleted

    async def stored_events(self, session_id: str, ids: Collection[str]) -> Set[str]:
        found = [numbered.event.id for numbered in self.events if numbered.event.session == session_id]
        return set(found[-2000:]) & set(ids)

    async def add_events(self, events: Sequence[AccountEvent]) -> None:
        self.note_events(events)

    async def list_events(
        self,
        account_id: str | None,
        *,
        after: int = 0,
        session: str | None = None,
        what: EventType | None = None,
        limit: int = 100,
    ) -> Sequence[NumberedEvent]:
        found = [
            numbered
            for numbered in self.events
            if numbered.number > after
            and account_id in (None, numbered.event.account)
            and session in (None, numbered.event.session)
            and what in (None, numbered.event.type)
        ]
        return found[:limit]

    async def newest_event(self, account_id: str) -> int:
        return max((numbered.number for numbered in self.events if numbered.event.account == account_id), default=0)

    async def newest_event_time(self) -> int | None:
        return self.events[-1].event.time if self.events else None

    async def drop_events(self, before: int, kept: int) -> int:
        young = [numbered for numbered in self.events if numbered.event.time >= before]
        left: Counter[str] = Counter(numbered.event.account for numbered in young)
        stays = []
        for numbered in young:
            if left[numbered.event.account] > kept:
                left[numbered.event.account] -= 1
            else:
                stays.append(numbered)
        dropped, self.events = len(self.events) - len(stays), stays
        self.deliveries = {name: pair for name, pair in self.deliveries.items() if pair[0] in stays}
        return dropped

    # webhooks

    async def add_webhook(
        self, webhook: Webhook, answer: Answer | None, limit: int, events: Sequence[AccountEvent] = ()
    ) -> None:
        account = self.accounts.get(webhook.account)
        if account is not None and account.status is AccountStatus.DELETED:
            raise Unauthorized("The account is deleted.")
        if len(await self.list_webhooks(webhook.account)) >= limit:
            raise ResourceLimitExceeded("webhooks", limit, "account", "")
        if webhook.id in self.webhooks:
            raise ValueError(f"webhook id {webhook.id} is taken")
        if answer is not None:
            self._add_first(answer)
        self.webhooks[webhook.id] = webhook
        self.note_events(events)

    async def get_webhook(self, webhook_id: str) -> Webhook | None:
        return self.webhooks.get(webhook_id)

    async def list_webhooks(self, account_id: str) -> Sequence[Webhook]:
        found = [webhook for webhook in self.webhooks.values() if webhook.account == account_id]
        return sorted(found, key=lambda webhook: (webhook.created_at, webhook.id))

    async def change_webhook(self, old: Webhook, new: Webhook, events: Sequence[AccountEvent] = ()) -> bool:
        stored = self.webhooks.get(old.id)
        if stored is None or stored.version != old.version:
            return False
        since = None if stored.off is not None and new.off is None else stored.failing_since
        self.webhooks[old.id] = replace(new, version=old.version + 1, failing_since=since)
        self.note_events(events)
        self._stored()
        return True

    async def remove_webhook(self, webhook_id: str, events: Sequence[AccountEvent] = ()) -> bool:
        if self.webhooks.pop(webhook_id, None) is None:
            return False
        self.note_events(events)
        return True

    async def drop_removed_webhooks(self) -> None:
        self.deliveries = {name: pair for name, pair in self.deliveries.items() if pair[1].webhook in self.webhooks}

    # deliveries

    async def waiting_webhooks(self, now: int) -> Mapping[str, News]:
        silent = {one.id for one in self.accounts.values() if one.status is not AccountStatus.ACTIVE}
        found = {}
        for webhook in sorted(self.webhooks.values(), key=lambda webhook: (webhook.created_at, webhook.id)):
            own = self._of(webhook.id)
            due = [one.due_at for _, one in own if one.state is DeliveryState.PENDING and one.due_at <= now]
            if due and webhook.off is None and webhook.account not in silent:
                newest = own[-1][0].number
                found[webhook.id] = (newest, max(due), self.redeliveries[webhook.id], webhook.version)
        return found

    async def due_deliveries(
        self, webhook_id: str, now: int, limit: int, busy: Collection[str] = (), after: Place = BEGINNING
    ) -> DuePage:
        webhook = self.webhooks.get(webhook_id)
        if webhook is None or webhook.off is not None:
            return DuePage([], None)
        pending = [pair for pair in self._of(webhook_id) if pair[1].state is DeliveryState.PENDING]
        once: dict[str, int] = {}  # session → number of its first event that failed once
        for numbered, delivery in pending:
            if numbered.event.session is not None and delivery.attempts == 1:
                once.setdefault(numbered.event.session, numbered.number)
        due = sorted(
            ((delivery.due_at, numbered.number), EventDelivery(delivery, numbered.event))
            for numbered, delivery in pending
            if delivery.due_at <= now
            and (delivery.due_at, numbered.number) > after
            and numbered.event.session not in busy
            and once.get(numbered.event.session or "", numbered.number) >= numbered.number
        )
        return DuePage([one for _, one in due[:limit]], due[limit - 1][0] if len(due) > limit else None)

    async def settle_delivery(self, delivery: Delivery) -> bool:
        webhook = self.webhooks.get(delivery.webhook)
        if webhook is not None:
            since = delivery.tried_at if webhook.failing_since is None else webhook.failing_since
            worked = delivery.state is DeliveryState.DELIVERED
            self.webhooks[webhook.id] = replace(webhook, failing_since=None if worked else since)
        stored = self.deliveries.get(delivery.id)
        if webhook is None or stored is None or stored[1].redelivery != delivery.redelivery:
            return False
        if stored[1].state is not DeliveryState.PENDING:
            return False
        self.deliveries[delivery.id] = (stored[0], delivery)
        return True

    async def list_deliveries(self, webhook_id: str, limit: int, offset: int) -> tuple[Sequence[EventDelivery], int]:
        own = self._of(webhook_id) if webhook_id in self.webhooks else []
        found = [EventDelivery(delivery, numbered.event) for numbered, delivery in reversed(own)]
        return found[offset : min(offset + limit, MOST_LISTED)], min(len(found), MOST_LISTED)

    async def redeliver(self, webhook_id: str, delivery_id: str, now: int) -> bool:
        stored = self.deliveries.get(delivery_id)
        if stored is None or stored[1].webhook != webhook_id:
            return False
        self.redeliveries[webhook_id] += 1
        asked = self.redeliveries[webhook_id]
        due_at = min(now, stored[0].event.time) if stored[1].state is DeliveryState.PENDING else now
        again = replace(stored[1], state=DeliveryState.PENDING, attempts=0, due_at=due_at, redelivery=asked)
        self.deliveries[delivery_id] = (stored[0], again)
        self._stored()
        return True

    async def delivery_numbers(self) -> DeliveryNumbers:
        on = {webhook.id for webhook in self.webhooks.values() if webhook.off is None}
        pending = [one for _, one in self.deliveries.values() if one.state is DeliveryState.PENDING]
        off = Counter(webhook.off for webhook in self.webhooks.values() if webhook.off is not None)
        return DeliveryNumbers(sum(one.webhook in on for one in pending), off)

    def _of(self, webhook_id: str) -> list[tuple[NumberedEvent, Delivery]]:
        """In the order of their events."""
        found = [pair for pair in self.deliveries.values() if pair[1].webhook == webhook_id]
        return sorted(found, key=lambda pair: pair[0].number)

    # idempotency

    def _add_first(self, answer: Answer) -> None:
        if (answer.account, answer.key) in self.answers:
            raise IdempotencyInProgress("Another request with this key just finished. Retry to get its response.")
        self.answers[answer.account, answer.key] = answer
