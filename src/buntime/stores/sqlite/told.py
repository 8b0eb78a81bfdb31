"""Events, webhooks and deliveries in the SQLite file: what is told of the changes."""

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from functools import partial
from pathlib import Path

from buntime.event import AccountEvent, EventType
from buntime.ports import BEGINNING, Answer, DeliveryNumbers, DuePage, EventDelivery, News, NumberedEvent, Place
from buntime.stores.sqlite import database, deliveries, webhooks
from buntime.stores.sqlite import events as sql
from buntime.stores.sqlite.committing import Committing
from buntime.stores.sqlite.log import LogCleaner
from buntime.stores.sqlite.writer import Writer
from buntime.webhook import Delivery, Webhook

DROP_AT_ONCE = 500  # rows deleted in one commit, so that other changes can run in between
MOST_SEARCHED = 2000  # events of a session, the newest first


class Told(Committing):
    """The part of `ports.Store` about events, webhooks and deliveries.

    A thread makes reads that may take many milliseconds, with a connection of its own.
    """

    def __init__(self, path: Path, reader: sqlite3.Connection, writer: Writer, log: LogCleaner) -> None:
        super().__init__(writer)
        self._path = path
        self._reader = reader
        self._log = log

    # events

    def on_stored(self, call: Callable[[], None]) -> None:
        self._stored = call

    def note_events(self, events: Sequence[AccountEvent], stored: Callable[[], None] | None = None) -> None:
        self._note_events(events, stored)

    async def stored_events(self, session_id: str, ids: Collection[str]) -> Set[str]:
        return sql.stored_events(self._reader, session_id, ids, MOST_SEARCHED)

    async def add_events(self, events: Sequence[AccountEvent]) -> None:
        await self._change(partial(sql.add_events, events=events))

    async def list_events(
        self,
        account_id: str | None,
        *,
        after: int = 0,
        session: str | None = None,
        what: EventType | None = None,
        limit: int = 100,
    ) -> Sequence[NumberedEvent]:
        return sql.list_events(self._reader, account_id, after, session, what, limit)

    async def newest_event(self, account_id: str) -> int:
        return sql.newest_event(self._reader, account_id)

    async def newest_event_time(self) -> int | None:
        return sql.newest_event_time(self._reader)

    async def drop_events(self, before: int, kept: int) -> int:
        total = await self._drop(partial(sql.drop_old_events, before=before, most=DROP_AT_ONCE))
        total += await self._drop_surplus(kept)
        if total:
            self._log.due()
        return total

    async def _drop_surplus(self, kept: int) -> int:
        """The oldest events of each account that has more than `kept`. Returns how many."""
        total, dropped = 0, 1
        while dropped:
            dropped = await self._change(partial(sql.drop_surplus_events, kept=kept, most=DROP_AT_ONCE))
            total += dropped
        return total

    async def _drop(self, some: Callable[[sqlite3.Connection], int]) -> int:
        """Calls `some`, which drops at most DROP_AT_ONCE rows, until it drops fewer. Returns how many it dropped."""
        total, dropped = 0, DROP_AT_ONCE
        while dropped == DROP_AT_ONCE:
            dropped = await self._change(some)
            total += dropped
        return total

    # webhooks

    async def add_webhook(
        self, webhook: Webhook, answer: Answer | None, limit: int, events: Sequence[AccountEvent] = ()
    ) -> None:
        await self._change_and_answer(answer, partial(webhooks.add_webhook, webhook=webhook, limit=limit), told=events)

    async def get_webhook(self, webhook_id: str) -> Webhook | None:
        return webhooks.get_webhook(self._reader, webhook_id)

    async def list_webhooks(self, account_id: str) -> Sequence[Webhook]:
        return webhooks.list_webhooks(self._reader, account_id)

    async def change_webhook(self, old: Webhook, new: Webhook, events: Sequence[AccountEvent] = ()) -> bool:
        work = partial(webhooks.change_webhook, new=new, expected=old.version)
        return await self._change_if_done(work, events)

    async def remove_webhook(self, webhook_id: str, events: Sequence[AccountEvent] = ()) -> bool:
        work = partial(webhooks.remove_webhook, webhook_id=webhook_id)
        removed = await self._change_if_done(work, events)
        if removed:
            self._log.due()  # its secrets
        return removed

    async def drop_removed_webhooks(self) -> None:
        await self._drop(partial(deliveries.drop_removed, most=DROP_AT_ONCE))

    # deliveries

    async def waiting_webhooks(self, now: int) -> Mapping[str, News]:
        return deliveries.waiting_webhooks(self._reader, now)

    async def due_deliveries(
        self, webhook_id: str, now: int, limit: int, busy: Collection[str] = (), after: Place = BEGINNING
    ) -> DuePage:
        return deliveries.due_deliveries(self._reader, webhook_id, now, limit, busy, after)

    async def settle_delivery(self, delivery: Delivery) -> bool:
        return await self._change(partial(deliveries.settle_delivery, delivery=delivery))

    async def list_deliveries(self, webhook_id: str, limit: int, offset: int) -> tuple[Sequence[EventDelivery], int]:
        read = partial(deliveries.list_deliveries, webhook_id=webhook_id, limit=limit, offset=offset)
        return await self._read(read)

    async def redeliver(self, webhook_id: str, delivery_id: str, now: int) -> bool:
        work = partial(deliveries.redeliver, webhook_id=webhook_id, delivery_id=delivery_id, now=now)
        return await self._change(work)

    async def delivery_numbers(self) -> DeliveryNumbers:
        return await self._read(deliveries.delivery_numbers)

    async def _change_if_done(self, work: Callable[[sqlite3.Connection], bool], told: Sequence[AccountEvent]) -> bool:
        """Commits the work, together with the events `told` if it returns True."""
        return await self._change(partial(_told_if_done, work=work, told=told))

    async def _read[T](self, read: Callable[[sqlite3.Connection], T]) -> T:
        def reading() -> T:
            with database.reading(self._path) as connection:
                return read(connection)

        return await asyncio.to_thread(reading)


def _told_if_done(
    connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], bool], told: Sequence[AccountEvent]
) -> bool:
    done = work(connection)
    sql.add_events(connection, told if done else ())
    return done
