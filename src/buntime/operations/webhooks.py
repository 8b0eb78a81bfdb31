"""One method per API operation on the webhooks of an account."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from urllib.parse import urlsplit

from buntime import errors
from buntime.caller import Caller
from buntime.daemon.tasks import Tasks
from buntime.event import AccountEvent, EventType
from buntime.ids import new_id
from buntime.operations.signing import Signing
from buntime.ports import Answer, EventDelivery, Store
from buntime.webhook import (
    WEBHOOK_PREFIX,
    Network,
    Webhook,
    check_url,
    is_allowed,
    of_webhook,
    rotated,
)

WEBHOOKS = 10  # of one account
CHANGES = 10  # attempts of a change while others change the same webhook
Types = frozenset[EventType] | None  # None: all, also those that come later


@dataclass(frozen=True, slots=True)
class MadeWebhook:
    secret: str
    webhook: Webhook


@dataclass(frozen=True, slots=True)
class Patch:
    """None: as it was."""

    url: str | None = None
    types: Types = None
    changes_types: bool = False
    enabled: bool | None = None


class Webhooks:
    def __init__(
        self, store: Store, signing: Signing, networks: Sequence[Network], tasks: Tasks, clock: Callable[[], float]
    ) -> None:
        """`networks`: where receivers may be, beside public addresses."""
        self._store = store
        self._signing = signing
        self._networks = networks
        self._tasks = tasks
        self._clock = clock

    async def create(
        self, caller: Caller, url: str, types: Types, answer: Callable[[MadeWebhook], Answer] | None = None
    ) -> MadeWebhook:
        """`answer`: see `Sessions.create`. Raises InvalidRequest, ResourceLimitExceeded."""
        self._check(url)
        webhook_id, now = new_id(WEBHOOK_PREFIX), self._clock()
        secret, sealed = self._signing.new(webhook_id)
        webhook = Webhook(webhook_id, caller.account.id, url, (sealed,), int(now), types)
        made = MadeWebhook(secret, webhook)
        told = of_webhook(webhook, EventType.WEBHOOK_CREATED, now)
        try:
            await self._store.add_webhook(webhook, answer and answer(made), WEBHOOKS, (told,))
        except errors.ResourceLimitExceeded:
            raise errors.ResourceLimitExceeded("webhooks", WEBHOOKS, "account", caller.plan.name) from None
        return made

    async def list(self, caller: Caller) -> Sequence[Webhook]:
        """All of them, oldest first."""
        return await self._store.list_webhooks(caller.account.id)

    async def get(self, caller: Caller, webhook_id: str) -> Webhook:
        """Raises WebhookNotFound."""
        found = await self._store.get_webhook(webhook_id)
        if found is None or found.account != caller.account.id:
            raise errors.WebhookNotFound(webhook_id)
        return found

    async def change(self, caller: Caller, webhook_id: str, patch: Patch) -> Webhook:
        """Raises InvalidRequest, WebhookNotFound."""
        if patch.url is not None:
            self._check(patch.url)
        return await self._change(caller, webhook_id, lambda webhook: _patched(webhook, patch))

    async def rotate(self, caller: Caller, webhook_id: str, overlap: int) -> MadeWebhook:
        """A new secret. The one before signs too for `overlap` seconds more. Raises WebhookNotFound."""
        secret, sealed = self._signing.new(webhook_id)
        now = self._clock()
        changed = await self._change(caller, webhook_id, lambda webhook: rotated(webhook, sealed, overlap, now))
        return MadeWebhook(secret, changed)

    async def delete(self, caller: Caller, webhook_id: str) -> None:
        """With its deliveries, of which many go after this has returned. Raises WebhookNotFound."""
        webhook = await self.get(caller, webhook_id)
        told = of_webhook(webhook, EventType.WEBHOOK_DELETED, self._clock())
        if not await self._store.remove_webhook(webhook_id, (told,)):
            raise errors.WebhookNotFound(webhook_id)
        self._tasks.start(self._store.drop_removed_webhooks(), f"deliveries of {webhook_id}")

    async def test(self, caller: Caller, webhook_id: str) -> AccountEvent:
        """An event that goes to this webhook alone. Raises WebhookNotFound, InvalidState."""
        told = of_webhook(await self._on(caller, webhook_id), EventType.WEBHOOK_TEST, self._clock())
        await self._store.add_events([told])
        return told

    async def deliveries(
        self, caller: Caller, webhook_id: str, limit: int, offset: int
    ) -> tuple[Sequence[EventDelivery], int]:
        """A page, newest event first, and the total. Raises WebhookNotFound."""
        await self.get(caller, webhook_id)
        return await self._store.list_deliveries(webhook_id, limit, offset)

    async def redeliver(self, caller: Caller, webhook_id: str, delivery_id: str) -> None:
        """Sends it again, with all its attempts. Raises WebhookNotFound, DeliveryNotFound, InvalidState."""
        await self._on(caller, webhook_id)
        if not await self._store.redeliver(webhook_id, delivery_id, int(self._clock())):
            raise errors.DeliveryNotFound(delivery_id)

    async def _on(self, caller: Caller, webhook_id: str) -> Webhook:
        webhook = await self.get(caller, webhook_id)
        if webhook.off is not None:
            raise errors.InvalidState("The webhook is off. Turn it on first, with enabled true.")
        return webhook

    async def _change(self, caller: Caller, webhook_id: str, changed: Callable[[Webhook], Webhook]) -> Webhook:
        for _ in range(CHANGES):
            webhook = await self.get(caller, webhook_id)
            new = changed(webhook)
            told = of_webhook(webhook, EventType.WEBHOOK_CHANGED, self._clock())
            if await self._store.change_webhook(webhook, new, (told,)):
                return await self.get(caller, webhook_id)
        raise errors.InvalidState("The webhook is changed too often at the same time. Try again.")

    def _check(self, url: str) -> None:
        """Names are checked when they are delivered to: what they stand for may change."""
        try:
            check_url(url)
        except ValueError as wrong:
            raise errors.InvalidRequest("url", f"url {wrong}.") from None
        host = urlsplit(url).hostname or ""
        try:
            ip_address(host)
        except ValueError:
            return
        if not is_allowed(host, self._networks):
            raise errors.InvalidRequest("url", "url must not have a private address.")


def _patched(webhook: Webhook, patch: Patch) -> Webhook:
    new = webhook if patch.url is None else replace(webhook, url=patch.url)
    if patch.changes_types:
        new = replace(new, types=patch.types)
    if patch.enabled is True:
        return replace(new, off=None)
    return new if patch.enabled is None or new.off is not None else replace(new, off="asked")
