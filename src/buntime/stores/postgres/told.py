"""Events, webhooks and deliveries: what is told of the changes."""

from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import asdict

from psycopg.errors import IntegrityError

from buntime.account import AccountStatus
from buntime.errors import ResourceLimitExceeded, Unauthorized
from buntime.event import AccountEvent, EventType
from buntime.fleet.members import Membership
from buntime.ports import BEGINNING, Answer, DeliveryNumbers, DuePage, EventDelivery, News, NumberedEvent
from buntime.ports import Place as Behind
from buntime.stores.postgres.committing import DROP_AT_ONCE, Committing, rows_of
from buntime.stores.postgres.connecting import Place
from buntime.stores.postgres.known_keys import KnownKeys
from buntime.stores.postgres.listening import Listening
from buntime.stores.postgres.transactions import Transaction, Transactions, Work
from buntime.stores.rows.events import numbered_of
from buntime.stores.rows.webhooks import event_delivery_of, webhook_of, webhook_row
from buntime.webhook import MOST_LISTED, Delivery, DeliveryState, Webhook

LOOKED_AT = 500  # deliveries that are due, in one look for those that can go
NEWEST = 2_000  # events of a session, among which `stored_events` looks
MOST_COUNTED = 100_000  # pending ones


class Told(Committing):
    """The part of `ports.Store` about events, webhooks and deliveries.

    Changes add events without a number. A reader first numbers those that have committed (`number_events` in the
    schema). So numbers grow in the order of the commits, and no change waits for another one's commit.
    """

    def __init__(
        self, place: Place, transactions: Transactions, host: str, membership: Callable[[], Membership]
    ) -> None:
        super().__init__(transactions, host, membership)
        self._stored: Callable[[], None] = _nothing
        self._wanted: Callable[[], bool] = _always
        self._keys = KnownKeys()
        self._listening = Listening(
            place, transactions, lambda: self._stored(), lambda: self._wanted(), lambda: self._keys.forget()
        )

    # events

    def on_stored(self, call: Callable[[], None]) -> None:
        self._stored = call

    def listen_while(self, wanted: Callable[[], bool]) -> None:
        """Of what others store, this host hears at once while it is wanted, and else within seconds."""
        self._wanted = wanted

    def note_events(self, events: Sequence[AccountEvent], stored: Callable[[], None] | None = None) -> None:
        rows = rows_of(events)
        if self._closing is None:
            self._note_rows(rows, stored)

    async def stored_events(self, session_id: str, ids: Collection[str]) -> Set[str]:
        await self._number()
        rows = await self._transactions.all("stored_events", session=session_id, most=NEWEST)
        return {row["id"] for row in rows} & set(ids)

    async def add_events(self, events: Sequence[AccountEvent]) -> None:
        await self._change(_do_nothing, events)

    async def list_events(
        self,
        account_id: str | None,
        *,
        after: int = 0,
        session: str | None = None,
        what: EventType | None = None,
        limit: int = 100,
    ) -> Sequence[NumberedEvent]:
        await self._number()
        wanted = {"account": account_id, "session": session, "type": what}
        rows = await self._transactions.filtered("list_events", after=after, limit=limit, **wanted)
        return [numbered_of(row) for row in rows]

    async def newest_event(self, account_id: str) -> int:
        await self._number()
        found = await self._transactions.first("newest_event", account=account_id)
        return 0 if found is None else int(found["seq"])

    async def newest_event_time(self) -> int | None:
        await self._number()
        found = await self._transactions.first("newest_event_time")
        return None if found is None else int(found["time"])

    async def drop_events(self, before: int, kept: int) -> int:
        await self._number()

        async def drop(name: str, **bound: int) -> int:
            found = await self._change(lambda transaction: transaction.only(name, most=DROP_AT_ONCE, **bound))
            return int(found["dropped"])

        total = await self._drop(lambda: drop("drop_old_events", before=before))
        while dropped := await drop("drop_surplus_events", kept=kept):
            total += dropped
        return total

    async def _number(self) -> None:
        """Gives numbers to the events that have committed."""
        found = await self._transactions.first("has_unnumbered")
        if found is not None and found["has"]:
            await self._transactions.change(lambda transaction: transaction.send("number_events"))

    # webhooks: what was stored before a change of them is delivered as they were then

    async def add_webhook(
        self, webhook: Webhook, answer: Answer | None, limit: int, events: Sequence[AccountEvent] = ()
    ) -> None:
        async def work(transaction: Transaction) -> None:
            await transaction.send("lock_account", account=webhook.account)
            account = await transaction.first("lock_status", account=webhook.account)
            if account is not None and account["status"] == AccountStatus.DELETED:
                raise Unauthorized("The account is deleted.")
            counted = await transaction.only("count_webhooks", account=webhook.account)
            if counted["webhooks"] >= limit:
                raise ResourceLimitExceeded("webhooks", limit, "account", "")
            await transaction.send("number_events")
            try:
                await transaction.run("add_webhook", **webhook_row(webhook))
            except IntegrityError as refused:
                raise ValueError(f"webhook id {webhook.id} is taken") from refused

        await self._change_and_answer(answer, work, events)

    async def get_webhook(self, webhook_id: str) -> Webhook | None:
        row = await self._transactions.first("get_webhook", id=webhook_id)
        return None if row is None else webhook_of(row)

    async def list_webhooks(self, account_id: str) -> Sequence[Webhook]:
        return [webhook_of(row) for row in await self._transactions.all("list_webhooks", account=account_id)]

    async def change_webhook(self, old: Webhook, new: Webhook, events: Sequence[AccountEvent] = ()) -> bool:
        values = webhook_row(new) | {"expected": old.version}
        return await self._change_if_done(_numbered("change_webhook", values), events)

    async def remove_webhook(self, webhook_id: str, events: Sequence[AccountEvent] = ()) -> bool:
        return await self._change_if_done(_numbered("remove_webhook", {"id": webhook_id}), events)

    async def drop_removed_webhooks(self) -> None:
        async def work(transaction: Transaction) -> int:
            dropped = await transaction.run("drop_removed", most=DROP_AT_ONCE)
            return max(dropped, await transaction.run("drop_emptied", most=DROP_AT_ONCE))

        await self._drop(lambda: self._change(work))

    # deliveries

    async def waiting_webhooks(self, now: int) -> Mapping[str, News]:
        await self._number()
        rows = await self._transactions.all("waiting_webhooks", now=now)
        return {row["id"]: (row["newest"], row["due"], row["redeliveries"], row["version"]) for row in rows}

    async def due_deliveries(
        self, webhook_id: str, now: int, limit: int, busy: Collection[str] = (), after: Behind = BEGINNING
    ) -> DuePage:
        await self._number()
        read, asked = self._transactions.all, {"after": after[0], "after_event": after[1], "looked": LOOKED_AT}
        found = await read("is_off", webhook=webhook_id)
        if not found or found[0]["off"] is not None:
            return DuePage([], None)
        looked = await read("look_for_due", webhook=webhook_id, now=now, **asked)
        free = [row for row in looked if row["session"] not in busy]
        sessions = {row["session"] for row in free} - {None}
        failed = await read("failed_once", webhook=webhook_id, sessions=list(sessions)) if sessions else []
        held = {row["session"]: row["event"] for row in failed}
        can_go = [row for row in free if held.get(row["session"], row["event"]) >= row["event"]]
        page = can_go[:limit]
        last = page[-1] if len(can_go) > limit else looked[-1] if len(looked) == LOOKED_AT else None
        rows = await read("found_deliveries", ids=[row["id"] for row in page]) if page else []
        end = None if last is None else (int(last["due_at"]), int(last["event"]))
        return DuePage([event_delivery_of(row) for row in rows], end)

    async def settle_delivery(self, delivery: Delivery) -> bool:
        values = asdict(delivery)
        worked = delivery.state is DeliveryState.DELIVERED

        async def work(transaction: Transaction) -> bool:
            await transaction.send("note_success" if worked else "note_failure", **values)
            return await transaction.run("settle_delivery", **values) == 1

        return await self._change(work)

    async def list_deliveries(self, webhook_id: str, limit: int, offset: int) -> tuple[Sequence[EventDelivery], int]:
        await self._number()
        (counted,) = await self._transactions.all("count_deliveries", webhook=webhook_id, most=MOST_LISTED)
        if not counted["total"]:
            return [], 0
        shown = max(0, min(limit, MOST_LISTED - offset))
        rows = await self._transactions.all("list_deliveries", webhook=webhook_id, limit=shown, offset=offset)
        return [event_delivery_of(row) for row in rows], int(counted["total"])

    async def redeliver(self, webhook_id: str, delivery_id: str, now: int) -> bool:
        async def work(transaction: Transaction) -> bool:
            await transaction.send("lock_webhook", webhook=webhook_id)
            if await transaction.run("redeliver", id=delivery_id, webhook=webhook_id, now=now) != 1:
                return False
            await transaction.send("count_redelivery", webhook=webhook_id)
            return True

        return await self._change(work)

    async def delivery_numbers(self) -> DeliveryNumbers:
        await self._number()
        (pending,) = await self._transactions.all("count_pending", most=MOST_COUNTED)
        off = await self._transactions.all("count_off")
        return DeliveryNumbers(int(pending["pending"]), {row["off"]: row["webhooks"] for row in off})

    def _has_stored(self) -> None:
        self._stored()
        self._listening.stored()


def _numbered(name: str, values: dict[str, object]) -> Work[bool]:
    """One statement that changes webhooks, after the events that have committed have their deliveries."""

    async def work(transaction: Transaction) -> bool:
        await transaction.send("number_events")
        return await transaction.run(name, **values) == 1

    return work


async def _do_nothing(_: Transaction) -> None:
    return None


def _always() -> bool:
    return True


def _nothing() -> None:
    return None
